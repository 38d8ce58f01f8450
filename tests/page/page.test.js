// The page as a browser sees it. The first tests look at the demonstration, which is the real daemon in a simulated
// world; the others put answers of their own in the place of the API's, which no demonstration would give.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import puppeteer from 'puppeteer-core';

const DESK = { width: 1440, height: 900 };
const TELEPHONE = { width: 390, height: 844, deviceScaleFactor: 2, isMobile: true, hasTouch: true };
const PICTURES = process.env.NODE_FLEET_PAGE_PICTURES;
const HOSTILE = `<img src=x onerror="window.taken=1">"'><script>window.taken=1</script>`;

const folder = mkdtempSync(join(tmpdir(), 'node-fleet-page-'));
let browser, daemon, address;

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

/** Starts the demonstration, and waits until it has decided something. */
async function demonstration() {
  const port = await freePort();
  const words = ['demo', '--lines', '--speed', '120', '--listen', `127.0.0.1:${port}`, '--socket', join(folder, `${port}.sock`)];
  const process_ = spawn(process.env.NODE_FLEET_BINARY, words, { stdio: 'ignore' });
  for (let tries = 0; tries < 200; tries++) {
    const status = await fetch(`http://127.0.0.1:${port}/api/v1/status`).then((answer) => answer.json()).catch(() => undefined);
    if (status?.plan?.pools.length > 0) return { process: process_, address: `http://127.0.0.1:${port}/` };
    await new Promise((done) => setTimeout(done, 100));
  }
  process_.kill();
  throw new Error('the demonstration does not decide anything');
}

before(async () => {
  ({ process: daemon, address } = await demonstration());
  // Nothing but this page is opened, so the sandbox, which root has not, is not missed.
  browser = await puppeteer.launch({ executablePath: process.env.CHROMIUM, args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'] });
});

after(async () => {
  await browser?.close();
  daemon?.kill();
  rmSync(folder, { recursive: true, force: true });
});

/**
 * Opens the page. `answers` stand in the place of the API's: by path, a value or what makes one of the request.
 * Whatever the browser complains of, and whatever else it asks, is kept.
 */
async function open({ viewport = DESK, answers, scheme = 'light', at = address } = {}) {
  const page = await browser.newPage();
  const complaints = [], asked = [];
  page.on('console', (message) => message.type() === 'error' && complaints.push(message.text()));
  page.on('pageerror', (error) => complaints.push(String(error)));
  page.on('request', (request) => asked.push(request.url()));
  await page.setViewport(viewport);
  await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }]);
  if (answers) {
    await page.setRequestInterception(true);
    page.on('request', (request) => {
      const { pathname } = new URL(request.url());
      const answer = answers[pathname];
      if (answer === undefined) return request.continue();
      const { status = 200, body } = typeof answer === 'function' ? answer(request) : { body: answer };
      return request.respond({ status, contentType: 'application/json', body: JSON.stringify(body) });
    });
  }
  await page.goto(at);
  return { page, complaints, asked };
}

/** Waits until a text stands in a part of the page. */
async function stands(page, selector, text) {
  const found = (where, what) => document.querySelector(where)?.textContent.includes(what);
  await page.waitForFunction(found, { timeout: 15000 }, selector, text).catch(async () => {
    const there = await page.$eval(selector, (part) => part.textContent).catch(() => 'nothing');
    assert.fail(`${selector} should say ${JSON.stringify(text)} and says ${JSON.stringify(there)}`);
  });
}

async function picture(page, name) {
  if (PICTURES) await page.screenshot({ path: join(PICTURES, `${name}.png`), fullPage: true });
}

/** What the demonstration's daemon answers, to be changed. */
async function recorded() {
  const get = (path) => fetch(new URL(path, address)).then((answer) => answer.json());
  const paths = ['/healthz', '/api/v1/status', '/api/v1/decisions', '/api/v1/forecast', '/api/v1/cost'];
  return Object.fromEntries(await Promise.all(paths.map(async (path) => [path, await get(path)])));
}

/** The same value with every text that is no time and no known word replaced. */
function hostile(value, key = '') {
  if (typeof value === 'string') return ['role', 'kind', 'state', 'action'].includes(key) || !Number.isNaN(Date.parse(value)) ? value : HOSTILE;
  if (Array.isArray(value)) return value.map((it) => hostile(it, key));
  if (value && typeof value === 'object') return Object.fromEntries(Object.entries(value).map(([name, it]) => [name, hostile(it, name)]));
  return value;
}

/** A status in which something is the matter with everything. */
async function troubled() {
  const answers = await recorded();
  const status = answers['/api/v1/status'];
  const pod = { namespace: 'shop', name: 'web-0' };
  Object.assign(status, {
    pause: { since: status.published, by: 'uid 0', reason: 'maintenance' },
    reload_error: 'pool.workers.min = 7: must not be above max (3)',
    sources: { ...status.sources, prometheus: { ok: false, why: 'connection refused', last_ok: null } },
  });
  Object.assign(status.plan, {
    pending: 3,
    unplaceable: [{ pod, why: 'not enough cpu' }],
    unplaceable_pods: 2,
    holds: [{ hold: 'paused', reason: 'maintenance by uid 0' }],
    alerts: [{ name: 'spot_exhausted', text: 'no spot anywhere' }],
  });
  const minute = Math.round(Date.parse(status.published) / 60000);
  answers['/api/v1/forecast'] = {
    forecasts: {
      requests: {
        pool: 'workers', says: 'expects more', standing: 'trusted', wanted: { buy: 5, hold: 6 }, known_minutes: 4000, demand: 7.25,
        expected: { minute: minute + 10, centre: 8.5, quantile_90: 9.5, quantile_95: 10.5 }, following: [], loss_ratio: 0.6, coverage: [0.9, 0.95],
      },
    },
  };
  return answers;
}

test('it shows the fleet of a living daemon, and asks nobody but it', async () => {
  const { page, complaints, asked } = await open();
  await stands(page, '#who', 'Leader in epoch');
  await stands(page, '#pools', 'workers');
  await stands(page, '#sources', 'kubernetes');
  await stands(page, '#cost', 'static peak');
  const shown = await page.$eval('#figures', (part) => part.textContent);
  const status = await fetch(new URL('/api/v1/status', address)).then((answer) => answer.json());
  assert.match(shown, /\d+ of \d+nodes ready/);
  assert.ok(status.plan.pools.length > 0);
  await picture(page, 'desk');
  assert.deepEqual(complaints, []);
  assert.deepEqual(asked.filter((url) => !url.startsWith(address) && !url.startsWith('data:')), []);
  await page.close();
});

test('it fits on a telephone and on a desk, by day and by night', async () => {
  for (const [name, viewport] of [['telephone', TELEPHONE], ['desk', DESK]]) {
    for (const scheme of ['light', 'dark']) {
      const { page, complaints } = await open({ viewport, scheme, answers: await troubled() });
      await stands(page, '#forecast', '8.5');
      const [wide, room] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
      assert.ok(wide <= room, `${name}: ${wide} pixels on ${room}`);
      const ground = await page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
      const light = Number(/\d+/.exec(ground)[0]) > 127;
      assert.equal(light, scheme === 'light', ground);
      await picture(page, `${name}-${scheme}-troubled`);
      assert.deepEqual(complaints, []);
      await page.close();
    }
  }
});

test('it says who paused and why, what is refused, what waits and what an operator should look at', async () => {
  const { page } = await open({ answers: await troubled() });
  for (const text of ['Paused', 'by uid 0: maintenance', 'node-fleet resume', 'must not be above max (3)', 'spot exhausted: no spot anywhere']) {
    await stands(page, '#banners', text);
  }
  for (const text of ['3 pods wait', 'shop/web-0', 'not enough cpu', 'and 1 more', 'paused: maintenance by uid 0']) {
    await stands(page, '#waits', text);
  }
  await stands(page, '#sources', 'does not answer: connection refused');
  await stands(page, '#forecast', 'would buy up to 5 and hold 6 nodes');
  assert.match(await page.title(), /^PAUSED/);
  await page.close();
});

test('the forecast is drawn with its band once there is a past', async () => {
  const answers = await troubled();
  let looks = 0;
  const status = answers['/api/v1/status'];
  const begin = Date.parse(status.published);
  const { requests } = answers['/api/v1/forecast'].forecasts;
  const then = () => {
    const expected = { minute: requests.expected.minute + 4 * looks, centre: 8 + looks, quantile_90: 9 + looks, quantile_95: 10 + 1.5 * looks };
    return { body: { forecasts: { requests: { ...requests, demand: 7 + 1.2 * looks, expected } } } };
  };
  const moving = {
    ...answers,
    '/api/v1/status': () => ({ body: { ...status, published: new Date(begin + 240000 * looks++).toISOString() } }),
    '/api/v1/forecast': then,
  };
  const { page, complaints } = await open({ answers: moving });
  await page.waitForFunction(() => document.querySelector('#forecast svg .band')?.points.length >= 6, { timeout: 30000 });
  assert.ok((await page.$eval('#forecast svg .actual', (line) => line.getAttribute('points'))).split(' ').length >= 2);
  await picture(page, 'forecast');
  assert.deepEqual(complaints, []);
  await page.close();
});

test('hostile names are shown as they are and do nothing', async () => {
  const answers = await troubled();
  for (const path of ['/api/v1/status', '/api/v1/decisions', '/api/v1/forecast', '/api/v1/cost']) answers[path] = hostile(answers[path]);
  answers['/api/v1/forecast'].forecasts = { [HOSTILE]: answers['/api/v1/forecast'].forecasts.requests };
  const { page, complaints } = await open({ answers });
  for (const part of ['#cluster', '#who', '#pools', '#waits', '#decisions', '#sources', '#forecast', '#cost', '#banners']) await stands(page, part, '<img src=x');
  const found = await page.evaluate(() => [document.images.length, document.scripts.length, 'taken' in window, document.querySelectorAll('main script, main img').length]);
  assert.deepEqual(found, [0, 1, false, 0]);
  assert.deepEqual(complaints, []);
  await page.close();
});

test('markup that came into it all the same would not run', async () => {
  const { page } = await open();
  await stands(page, '#pools', 'workers');
  const refused = await page.evaluate(() => {
    const ways = {
      handler: () => document.createElement('img').setAttribute('onerror', 'window.taken=1'),
      markup: () => document.body.insertAdjacentHTML('beforeend', '<img src=x onerror="window.taken=1">'),
      script: () => { document.createElement('script').textContent = 'window.taken=1'; },
      text: () => setTimeout('window.taken=1'),
    };
    const tried = Object.entries(ways).map(([name, way]) => {
      try {
        way();
        return [name, 'was let through'];
      } catch (error) {
        return [name, error.name];
      }
    });
    return Object.fromEntries(tried);
  });
  assert.deepEqual(refused, { handler: 'TypeError', markup: 'TypeError', script: 'TypeError', text: 'TypeError' });
  assert.equal(await page.evaluate(() => 'taken' in window), false);
  await page.close();
});

test('from another machine it asks for the token, sends it and keeps it nowhere', async () => {
  const known = await recorded();
  const guarded = Object.fromEntries(Object.entries(known).map(([path, body]) => [path, (request) => {
    const open_ = path === '/healthz' || request.headers().authorization === 'Bearer canary';
    return open_ ? { body } : { status: 401, body: { error: 'this is not the token' } };
  }]));
  const { page } = await open({ answers: guarded });
  await page.waitForSelector('#unlock:not([hidden])');
  await page.type('#token', 'canary');
  await page.keyboard.press('Enter');
  await stands(page, '#who', 'Leader in epoch');
  await page.waitForSelector('#unlock[hidden]');
  assert.deepEqual(await page.evaluate(() => [localStorage.length, sessionStorage.length, document.cookie]), [0, 0, '']);
  await page.close();
});

test('everything is reached and opened by the keyboard, and stays open', async () => {
  const answers = await recorded();
  let looks = 0;
  const status = answers['/api/v1/status'];
  const moving = { ...answers, '/api/v1/status': () => ({ body: { ...status, turns: ++looks, published: new Date(Date.parse(status.published) + 60000 * looks).toISOString() } }) };
  const { page } = await open({ answers: moving });
  await stands(page, '#decisions', '·');
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.className), 'skip');
  await page.keyboard.press('Enter');
  await page.keyboard.press('Tab');
  const key = await page.evaluate(() => document.activeElement.closest('details')?.dataset.key);
  assert.ok(key, 'the first thing after the headline is a decision');
  const isOpen = () => page.$eval(`details[data-key="${key}"]`, (it) => it.open);
  const was = await isOpen();
  await page.keyboard.press('Enter');
  assert.equal(await isOpen(), !was);
  const before_ = looks;
  while (looks < before_ + 2) await new Promise((done) => setTimeout(done, 200));
  await new Promise((done) => setTimeout(done, 300));
  assert.equal(await isOpen(), !was, 'a new look leaves it as it was');
  assert.equal(await page.evaluate(() => document.activeElement.closest('details')?.dataset.key), key, 'and in focus');
  await page.close();
});

test('a standby says whose it is, and that it knows nothing of the fleet', async () => {
  const answers = await recorded();
  Object.assign(answers['/api/v1/status'], { role: { role: 'standby', leader: 'server-2/1' }, plan: null, operations: [], sources: {} });
  answers['/api/v1/cost'] = { cost: null };
  const { page, complaints } = await open({ answers });
  await stands(page, '#who', 'Standby of server-2/1');
  await stands(page, '#pools', 'look at the leader');
  await stands(page, '#cost', 'Only the leader');
  assert.deepEqual(complaints, []);
  await page.close();
});

test('it says so when the loop hangs, and when the daemon is gone, and of when its figures are', async () => {
  const own = await demonstration();
  const answers = { '/healthz': () => ({ status: 503, body: { error: 'this leader has not made a turn for 400 s' } }) };
  const { page } = await open({ answers, at: own.address });
  await stands(page, '#banners', 'has not made a turn for 400 s');
  assert.ok(await page.$eval('main', (main) => main.classList.contains('old')));
  await page.close();
  const { page: other } = await open({ at: own.address });
  await stands(other, '#who', 'Leader in epoch');
  assert.ok(!(await other.$eval('main', (main) => main.classList.contains('old'))));
  own.process.kill('SIGKILL');
  await stands(other, '#banners', 'The daemon does not answer');
  await stands(other, '#banners', 'What is shown is of 20');
  assert.ok(await other.$eval('main', (main) => main.classList.contains('old')));
  await picture(other, 'gone');
  await other.close();
});
