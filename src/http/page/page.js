'use strict';
// Everything that the daemon says goes into the page as text: a name from the cluster is never markup.
const EVERY = 5000, PATIENCE = 8000, SAMPLES = 240;
const READS = { status: '/api/v1/status', decisions: '/api/v1/decisions?limit=12', forecast: '/api/v1/forecast', cost: '/api/v1/cost' };
const $ = (id) => document.getElementById(id);
const state = { token: '', answered: 0, failed: '', sick: '', locked: false, data: {}, drawn: {}, past: new Map() };

/** Makes an element of text, numbers and other elements; attributes are names and texts. */
function el(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) made.setAttribute(name, value);
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ''));
  return made;
}

const list = (value) => (Array.isArray(value) ? value : []);
const count = (number, one, many) => `${number} ${number === 1 ? one : many}`;
const dollars = (amount) => (typeof amount === 'number' ? `$${amount.toFixed(Math.abs(amount) < 10 ? 3 : 2)}` : '—');
const hourly = (micro) => dollars((micro || 0) / 1e6);
const percent = (share) => (typeof share === 'number' ? `${Math.round(share * 100)} %` : 'unknown');
const words = (name) => String(name ?? '').replaceAll('_', ' ');
const clock = (at) => String(at ?? '').replace(/^(\d+-\d+-\d+)T(\d+:\d+)(:\d+)?.*$/, '$1 $2$3 UTC');

/** How long before the daemon's own present something was. The browser's clock may be another one. */
function ago(at) {
  const seconds = Math.round((Date.parse(state.data.status?.published) - Date.parse(at)) / 1000);
  if (!Number.isFinite(seconds)) return '';
  if (Math.abs(seconds) < 2) return 'just now';
  const size = Math.abs(seconds);
  const text = size < 120 ? `${size} s` : size < 7200 ? `${Math.round(size / 60)} min` : size < 172800 ? `${Math.round(size / 3600)} h` : `${Math.round(size / 86400)} d`;
  return seconds >= 0 ? `${text} ago` : `in ${text}`;
}
const moment = (at) => el('time', { datetime: String(at), title: clock(at) }, ago(at) || String(at));

/** A reason with its fields, as `node-fleet status` writes it. */
function reason(of) {
  if (typeof of === 'string') return of;
  if (!of) return '';
  if (of.why === 'pending_pods') return `${count(of.pods, 'pod', 'pods')} cannot be scheduled`;
  const name = of.hold || of.why || of.failure || '';
  const rest = Object.entries(of).filter(([key, value]) => !['hold', 'failure'].includes(key) && value !== name && value !== null);
  const text = rest.map(([key, value]) => (['evidence', 'why', 'reason', 'message'].includes(key) ? list(value).join('; ') || String(value) : `${words(key)} ${value && typeof value === 'object' ? JSON.stringify(value) : clock(value)}`));
  return [words(name), text.filter(Boolean).join(', ')].filter(Boolean).join(of.until || of.since ? ' ' : ': ');
}

function action(of) {
  const kind = list(of.instance_types)[0] || '';
  if (of.action === 'launch') return `buys ${of.count} ${of.market} ${kind} in ${of.zone}, ${hourly(of.price)}/h each at most: ${reason(of.reason)}`;
  return `gives ${of.node?.name || of.instance || 'an instance'} back: ${reason(of.reason)}`;
}

/** A rule that is below its threshold waits for nothing. */
const isIdle = (finding) => finding.hold.hold === 'not_sustained' && !finding.hold.since;

/** The latest decision that did not hurry: only those look at utilisation. */
const full = (decisions) => list(decisions).find((it) => !['pods', 'notice'].includes(it.trigger));

function table(heads, rows, empty) {
  if (rows.length === 0) return el('p', { class: 'quiet' }, empty);
  const cell = (tag, [name, number], value) => el(tag, { ...(number ? { class: 'number' } : {}), ...(tag === 'td' ? { 'data-name': name } : { scope: 'col' }) }, value);
  const head = el('tr', {}, heads.map((it) => cell('th', it, it[0])));
  return el('table', { class: 'stacks' }, el('thead', {}, head), el('tbody', {}, rows.map((row) => el('tr', {}, row.map((value, at) => cell('td', heads[at], value))))));
}

const draw = {
  cluster: ({ status }) => [status.cluster],
  who: ({ status }) => {
    const leads = status.role.role === 'leader';
    const role = leads ? `Leader in epoch ${status.role.epoch}` : status.role.leader ? `Standby of ${status.role.leader}` : 'Standby, leader not known';
    return [
      el('span', { class: `pill ${leads ? 'good' : status.role.leader ? '' : 'warn'}` }, role),
      status.pause ? el('span', { class: 'pill bad' }, 'Paused') : '',
      el('span', { class: 'pill' }, status.owner),
      el('span', { class: 'pill' }, `version ${status.version}`),
    ];
  },
  figures: ({ status, cost }) => {
    const pools = list(status.plan?.pools);
    const sum = (of) => pools.reduce((total, pool) => total + of(pool), 0);
    const figure = (value, name) => el('div', { class: 'figure' }, el('b', {}, value), el('span', {}, name));
    const month = cost?.month;
    const saved = month && month.static_peak_dollars > 0 ? 1 - month.dollars / month.static_peak_dollars : undefined;
    const known = (value) => (status.plan ? value : '—');
    return [
      figure(known(`${sum((pool) => pool.ready)} of ${sum((pool) => pool.desired)}`), 'nodes ready of those wanted'),
      figure(known(String(status.plan?.pending ?? 0)), 'pods wait for a node'),
      figure(known(hourly(sum((pool) => pool.price))), 'an hour'),
      figure(dollars(cost?.today.dollars), 'today (UTC)'),
      figure(dollars(month?.dollars), 'this month'),
      figure(saved === undefined ? '—' : percent(saved), 'saved against a static peak'),
    ];
  },
  pools: ({ status, decisions }) => {
    // EC2 shows an instance long before it is a node: until then it boots, and nothing is wrong with it.
    const joining = (pool) => list(status.operations).filter((it) => it.kind === 'launch' && it.state === 'joining' && it.order.pool === pool).flatMap((it) => list(it.instances)).filter((it) => !it.node).length;
    const leaving = (pool) => list(status.operations).filter((it) => it.kind === 'retire' && it.order.pool === pool && !['done', 'rolled_back'].includes(it.state)).length;
    const measured = list(full(decisions)?.plan.pools);
    const pools = list(status.plan?.pools).map((pool) => {
      const { cpu, memory } = measured.find((it) => it.pool === pool.pool) || pool;
      const gone = Math.min(leaving(pool.pool), pool.ready), late = Math.max(0, pool.owned - pool.ready), broken = Math.max(0, late - joining(pool.pool));
      const kinds = [['ready', pool.ready - gone], ['leaving', gone], ['not_ready', broken], ['booting', pool.in_flight + late - broken]];
      const there = kinds.reduce((sum, [, number]) => sum + number, 0);
      kinds.push(['room', Math.max(0, pool.max - there)]);
      const cells = kinds.flatMap(([kind, number]) => Array.from({ length: Math.min(number, 120) }, () => el('span', { class: `cell ${kind}` })));
      const told = kinds.slice(0, 4).filter(([, number]) => number > 0).map(([kind, number]) => `${number} ${{ ready: 'ready', leaving: 'leaving', not_ready: 'not ready', booting: 'booting' }[kind]}`);
      return el('div', { class: 'pool' },
        el('div', { class: 'pool-head' }, el('h3', {}, pool.pool), el('span', {}, `${hourly(pool.price)}/h`)),
        el('div', { class: 'cells', role: 'img', 'aria-label': told.join(', ') || 'no nodes' }, cells),
        el('p', {}, told.join(', ') || 'no nodes', `; wanted ${pool.desired}, from ${pool.min} to ${pool.max}`),
        el('div', { class: 'facts quiet' }, el('span', {}, `CPU ${percent(cpu)}`), el('span', {}, `memory ${percent(memory)}`), el('span', {}, `${hourly(pool.price_after)}/h after the latest plan`)));
    });
    return pools.length ? pools : [el('p', { class: 'quiet' }, status.role.role === 'leader' ? 'The latest turn saw no pools: a source does not answer.' : 'A standby sees no pools; look at the leader.')];
  },
  waits: ({ status, decisions }) => {
    const plan = status.plan;
    if (!plan) return [el('p', { class: 'quiet' }, 'Nothing is known yet.')];
    const held = list((full(decisions)?.plan || plan).pools).flatMap((pool) => list(pool.findings).filter((it) => it.hold && !isIdle(it)).map((it) => el('li', {},
      `${pool.pool}, ${words(it.rule)}: `, el('span', { class: 'hold' }, reason(it.hold)), it.evidence ? ` (${it.evidence})` : '')));
    const whole = list(plan.holds).map((it) => el('li', {}, 'the whole fleet: ', el('span', { class: 'hold' }, reason(it))));
    const pods = list(plan.unplaceable).map((it) => el('li', {}, el('code', {}, `${it.pod.namespace}/${it.pod.name}`), `: no node of ours could take it: ${it.why}`));
    const served = plan.pending ? list(plan.pools).flatMap((pool) => list(pool.findings).filter((it) => it.rule === 'pending_pods').map((it) => el('li', {}, `${pool.pool}: ${it.evidence}`))) : [];
    const more = (plan.unplaceable_pods || 0) - pods.length;
    return [
      el('p', {}, `${count(plan.pending || 0, 'pod waits', 'pods wait')} for a node${plan.unplaceable_pods ? `, and ${plan.unplaceable_pods} could be taken by none` : ''}.`),
      served.length + pods.length ? el('ul', {}, served, pods, more > 0 ? el('li', {}, `and ${more} more`) : '') : '',
      held.length + whole.length ? el('h3', {}, 'Held back') : '',
      held.length + whole.length ? el('ul', {}, whole, held) : el('p', { class: 'quiet' }, 'No rule is held back.'),
    ];
  },
  decisions: ({ decisions }) => list(decisions).map((it, at) => {
    const actions = list(it.plan.actions);
    const short = list(it.refused).length ? 'refused by the audit' : actions.length ? actions.map(action).join('; ') : 'nothing to do';
    const findings = list(it.plan.pools).flatMap((pool) => list(pool.findings).map((found) => el('li', {},
      `${pool.pool}, ${words(found.rule)}: wants ${found.wants > 0 ? '+' : ''}${found.wants}; ${found.evidence}`,
      found.hold ? el('span', { class: 'hold' }, ` [held: ${reason(found.hold)}]`) : '',
      list(found.passed_over).length ? ` (passed over: ${found.passed_over.join('; ')})` : '')));
    const holds = list(it.plan.holds).map((hold) => el('li', { class: 'hold' }, reason(hold)));
    const refused = list(it.refused).map((why) => el('li', { class: 'bad' }, why));
    const operations = list(it.operations);
    return el('details', { 'data-key': it.at, ...(at === 0 && !state.drawn.decisions ? { open: '' } : {}) },
      el('summary', {}, el('span', { class: 'quiet' }, moment(it.at), ` · ${it.trigger}`), short),
      el('div', {}, el('ul', {}, refused, holds, findings), operations.length ? el('p', { class: 'quiet' }, `operations: ${operations.join(', ')}`) : ''));
  }),
  operations: ({ status }) => [table([['operation'], ['pool'], ['what'], ['state'], ['changed']],
    list(status.operations).slice(0, 20).map((it) => [
      el('code', {}, it.id), it.order.pool,
      it.kind === 'launch' ? `buys ${it.order.count} ${it.order.market} in ${it.order.zone}: ${reason(it.order.reason)}` : `gives ${it.order.node?.name || it.order.instance || 'an instance'} back: ${reason(it.order.reason)}`,
      el('span', { class: /fail|roll/.test(it.state) ? 'bad' : it.state === 'done' ? 'good' : 'warn' }, words(it.state), it.failure ? `: ${reason(it.failure)}` : '', typeof it.reason === 'string' ? `: ${it.reason}` : ''),
      moment(it.updated)]), 'Nothing is under way, and nothing ended lately.')],
  cost: ({ cost }) => {
    if (!cost) return [el('p', { class: 'quiet' }, 'Only the leader keeps the ledger; nothing is known here.')];
    const periods = [['today', cost.today], ['yesterday', cost.yesterday], ['this month', cost.month], ['last month', cost.last_month]].filter(([, it]) => it);
    const by = list(cost.month.by).map((it) => [it.pool || 'no pool', it.market, it.node_hours.toFixed(1), dollars(it.dollars)]);
    return [
      table([['period'], ['node-hours', 1], ['paid', 1], ['on demand', 1], ['static peak', 1]], periods.map(([name, it]) => [name, it.node_hours.toFixed(1), dollars(it.dollars), dollars(it.on_demand_dollars), dollars(it.static_peak_dollars)]), ''),
      el('p', { class: 'quiet' }, 'Reckoned from list and market prices. On demand: the same instances. Static peak: as large all the time as at the largest, on demand.'),
      by.length ? el('h3', {}, 'This month by pool and market') : '',
      by.length ? table([['pool'], ['market'], ['node-hours', 1], ['paid', 1]], by, '') : '',
    ];
  },
  forecast: ({ forecast }) => {
    const rules = Object.entries(forecast || {});
    if (rules.length === 0) return [el('p', { class: 'quiet' }, 'No [[forecast]] rule is followed here.')];
    return rules.map(([rule, it]) => el('div', { class: 'pool' },
      el('div', { class: 'pool-head' }, el('h3', {}, rule), el('span', {}, `${words(it.standing)}, pool ${it.pool}`)),
      el('p', {}, it.says),
      it.expected ? el('p', {}, `demand now ${short(it.demand)}; expected ${short(it.expected.centre)}, 90 % below ${short(it.expected.quantile_90)}, 95 % below ${short(it.expected.quantile_95)}`) : '',
      it.wanted ? el('p', {}, `would buy up to ${it.wanted.buy} and hold ${it.wanted.hold} nodes`) : '',
      chart(state.past.get(rule) || [])));
  },
  sources: ({ status }) => [table([['source'], ['state'], ['last answer']], Object.entries(status.sources || {}).map(([name, it]) => [
    name, el('span', { class: it.ok ? 'good' : 'bad' }, it.ok ? 'answers' : `does not answer: ${it.why}`), it.last_ok ? moment(it.last_ok) : 'never']), 'None has been asked yet.')],
};
const short = (value) => (typeof value === 'number' ? String(Math.round(value * 100) / 100) : '—');

/** Keeps what the page has seen of each demand, so that the forecast can be held against what came. */
function remember() {
  for (const [rule, it] of Object.entries(state.data.forecast || {})) {
    const past = state.past.get(rule) || [];
    const at = Date.parse(state.data.status.published) / 60000;
    if (typeof it.demand === 'number' && past.at(-1)?.at !== at) past.push({ at, demand: it.demand, expected: it.expected });
    state.past.set(rule, past.slice(-SAMPLES));
  }
}

/** Draws demand, and the band between what is expected and what it stays below in 95 of 100 minutes. */
function chart(past) {
  const expected = past.filter((it) => it.expected).map((it) => it.expected);
  if (past.length < 2) return el('p', { class: 'quiet' }, 'A chart begins while this page is open.');
  const xs = [...past.map((it) => it.at), ...expected.map((it) => it.minute)];
  const [from, to] = [Math.min(...xs), Math.max(...xs)];
  const top = Math.max(...past.map((it) => it.demand), ...expected.map((it) => it.quantile_95), 1e-9) * 1.1;
  const point = (at, value) => `${(((at - from) / (to - from || 1)) * 300).toFixed(1)},${(100 - (value / top) * 100).toFixed(1)}`;
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  const shape = (tag, kind, points) => {
    const made = document.createElementNS('http://www.w3.org/2000/svg', tag);
    made.setAttribute('class', kind);
    made.setAttribute('points', points.join(' '));
    svg.append(made);
  };
  for (const [name, value] of [['class', 'chart'], ['viewBox', '0 0 300 100'], ['preserveAspectRatio', 'none'], ['role', 'img'], ['aria-label', `demand up to ${short(top / 1.1)}, with the forecast's band`]]) svg.setAttribute(name, value);
  shape('polygon', 'band', [...expected.map((it) => point(it.minute, it.quantile_95)), ...expected.slice().reverse().map((it) => point(it.minute, it.centre))]);
  shape('polyline', 'centre', expected.map((it) => point(it.minute, it.centre)));
  shape('polyline', 'actual', past.map((it) => point(it.at, it.demand)));
  return svg;
}

function banners() {
  const found = [];
  const add = (kind, text) => found.push(el('div', { class: `banner ${kind}` }, text));
  const { status } = state.data;
  const seen = status ? ` What is shown is of ${clock(status.published)}.` : '';
  if (state.failed && !state.locked) add('bad', `The daemon does not answer (${state.failed}).${seen}`);
  if (state.sick) add('bad', `The daemon answers, but ${state.sick}.${seen}`);
  if (status?.pause) add('', `Paused ${ago(status.pause.since)} by ${status.pause.by}: ${status.pause.reason}. What is in flight finishes; nothing is started. To go on: node-fleet resume`);
  if (status?.reload_error) add('bad', `The latest configuration was refused, and the one before it holds: ${status.reload_error}`);
  for (const alert of list(status?.plan?.alerts)) add('', `${words(alert.name)}: ${alert.text}`);
  return found;
}

/** Puts elements in the place of those that are there, and leaves open and in focus what was. */
function replace(place, children) {
  const open = new Set([...place.querySelectorAll('details[open]')].map((it) => it.dataset.key));
  const focused = place.contains(document.activeElement) ? document.activeElement.closest('details')?.dataset.key : undefined;
  place.replaceChildren(...children.filter((child) => child !== ''));
  for (const it of place.querySelectorAll('details')) {
    if (open.has(it.dataset.key)) it.open = true;
    if (focused !== undefined && it.dataset.key === focused) it.querySelector('summary').focus({ preventScroll: true });
  }
}

/** Draws what has changed. A banner is read out once, not at every look. */
function show() {
  $('unlock').hidden = !state.locked;
  $('main').classList.toggle('old', Boolean(state.failed || state.sick));
  const told = banners();
  const text = told.map((it) => it.textContent).join('\n');
  if (state.drawn.banners !== text) {
    $('banners').replaceChildren(...told);
    state.drawn.banners = text;
  }
  if (!state.data.status) return;
  const { status } = state.data;
  document.title = `${status.pause ? 'PAUSED ' : ''}${status.cluster} · node-fleet`;
  $('news').replaceChildren(`as of ${clock(status.published)}, latest turn `, status.last_turn ? moment(status.last_turn) : 'none yet');
  for (const [name, make] of Object.entries(draw)) {
    const children = make(state.data);
    const key = children.map((child) => child.outerHTML ?? String(child)).join('\n');
    if (state.drawn[name] !== key) {
      replace($(name), children);
      state.drawn[name] = key;
    }
  }
}

async function ask(path) {
  const headers = state.token ? { authorization: `Bearer ${state.token}` } : {};
  const answer = await fetch(path, { headers, cache: 'no-store', signal: AbortSignal.timeout(PATIENCE) });
  const body = await answer.json();
  return { code: answer.status, body };
}

async function look() {
  try {
    const [health, ...answers] = await Promise.all(['/healthz', ...Object.values(READS)].map(ask));
    state.sick = health.code === 200 ? '' : health.body.error;
    const bad = answers.find((it) => it.code !== 200);
    state.locked = [401, 403].includes(bad?.code);
    state.failed = bad ? bad.body.error : '';
    if (!bad) {
      const [status, decisions, forecast, cost] = answers.map((it) => it.body);
      state.data = { status, decisions: decisions.decisions, forecast: forecast.forecasts, cost: cost.cost };
      remember();
    }
  } catch (error) {
    state.failed = error.name === 'TimeoutError' ? `no answer within ${PATIENCE / 1000} s` : error.name === 'TypeError' ? 'no connection' : error.message;
  }
  show();
}

$('unlock').addEventListener('submit', (event) => {
  event.preventDefault();
  state.token = $('token').value;
  look();
});
(async () => {
  for (;;) {
    if (!document.hidden) await look();
    await new Promise((done) => setTimeout(done, EVERY));
  }
})();
