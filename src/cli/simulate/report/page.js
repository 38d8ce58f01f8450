"use strict";
// What the page says of a replay. Whatever came from a recording goes into it as text.
const data = JSON.parse(document.getElementById("data").textContent), $ = (id) => document.getElementById(id);
const { found, conditions: told, rates } = data;

/** Writes a column that seldom changes out again. */
const whole = (runs) => runs.flatMap(([value, times]) => Array(times).fill(value));
const xs = data.highest.map((_, at) => (data.start + at * data.bin_minutes) * 60);
const ordered = [...data.trajectories.filter((it) => it.leads), ...data.trajectories.filter((it) => !it.leads)];
const policies = ordered.map(({ policy, leads, nodes, days }, at) => ({
  name: policy, leads, nodes: whole(nodes), days, colour: INKS[at % INKS.length], dash: DASHES[Math.floor(at / INKS.length) % DASHES.length],
}));
const leading = policies.filter((it) => it.leads), [ours] = policies;
const outcome = (name) => found.outcomes.find((it) => it.policy == name);

function table(place, head, rows) {
  const cells = (row, tag) => row.map((text) => el(tag, tag == "th" ? { scope: "col" } : {}, text == null ? "" : String(text)));
  place.append(el("thead", {}, el("tr", {}, ...cells(head, "th"))), el("tbody", {}, ...rows.map((row) => el("tr", {}, ...cells(row, "td")))));
}

/** Gathers the places of a column that hold something by the day that they are of, by 1440 minutes from the first. */
function byDay(column) {
  const days = new Map();
  column.forEach((value, at) => {
    if (value == null) return;
    const day = Math.floor(at * data.bin_minutes / 1440);
    if (!days.has(day)) days.set(day, []);
    days.get(day).push(at);
  });
  return [...days];
}
const dayOf = (day) => clock((data.start + 1440 * day) * 60).replace(" 00:00", "");

function about() {
  const boots = told.boot_seconds[0] == told.boot_seconds[1] ? `${told.boot_seconds[0]} s` : `${told.boot_seconds[0]} to ${told.boot_seconds[1]} s, ${fix(100 * told.failing_launches, 0)} % of launches fail`;
  const scale = "nodes" in told.scale ? `The demand is scaled so that ${told.scale.nodes} nodes suffice in 99.9 % of its minutes` : `A node serves ${told.scale.node_size} of the demand`;
  return [
    `${data.demand}: ${fix(found.days, 1)} days that count, from ${clock(xs[0])} UTC.`,
    `A node-minute of waiting is worth ${data.price_of_waiting} node-minutes; a node costs $${fix(rates.on_demand, 4)} an hour${rates.spot_share > 0 ? ` on demand and $${fix(rates.spot, 4)} on spot` : ""}.`,
    data.repairs.gaps ? `The recording has gaps, ${data.repairs.gaps} of them with ${fix(data.repairs.missing_minutes, 0)} minutes: they are not counted.` : "",
    data.repairs.period_seconds > 60 ? `It has a value every ${data.repairs.period_seconds} seconds: each stands until the next.` : "",
    `${fix(found.warm_up_days, 1)} days before these taught the forecast.`,
    `${scale}${told.node_memory ? `, with ${told.node_memory} of memory` : ""}; it boots ${boots}.`,
    `Configured is ${told.configuration}, rule ${told.rule}, with predictive.mode = "${told.mode}"; node-fleet decides by ${told.decided_by == "plan" ? "its own plan" : "counts, as its plan does"};`,
    `pods use ${fix(100 * told.cpu_use, 0)} % of what they request; the seed is ${told.seed}.`,
  ].filter(Boolean).join(" ");
}

function capacity() {
  const interval = data.bin_minutes == 1 ? "Every minute is drawn." : `An interval is ${data.bin_minutes} minutes: demand is its highest, nodes are its fewest.`;
  $("intervals").textContent = `Drag over a stretch, or press Closer, to look at it; a double click or Whole shows all again. A name below hides or shows its line. ${interval}`;
  // What needs more nodes than there were waits; over a wider interval that is the most that can have waited at once.
  const short = (nodes, at) => nodes == null ? "—" : data.highest[at] > nodes ? `${nodes} (${fix(data.highest[at] - nodes, 2)} too few)` : String(nodes);
  const line = (it) => [series(it.name, it.colour, 0, {
    width: it === ours ? 2 : 1.3, dash: it.dash, paths: steps, show: it.leads, rank: 1 + policies.indexOf(it), value: (u, nodes, drawn, at) => short(nodes, at),
  }), it.nodes];
  overTime($("capacity"), "Demand, and the nodes that served it, over time", "nodes", xs, () => ({
    // The last is drawn over the others.
    lines: [[series("demand", "--soft", 2, { width: 1, fill: ink("--area"), rank: 0 }), data.highest], ...[...policies].reverse().map(line)],
  }));
  const each = leading.map((it) => it.days);
  table($("days"), ["day from (UTC)", "highest demand", ...leading.flatMap((it) => [`${it.name}: node-hours`, "node-minutes that waited"])], byDay(data.highest).map(([day, places]) =>
    [dayOf(day), fix(places.reduce((most, at) => Math.max(most, data.highest[at]), 0), 2), ...each.flatMap((days) => [fix(days[day].paid / 60, 0), fix(days[day].unmet, 1)])]));
}

function trade() {
  const peak = outcome("static peak"), shown = found.outcomes.filter((it) => it !== peak);
  const says = (it) => `${it.policy}: $${fix(it.dollars, 2)}, ${fix(100 * it.unmet_share, 3)} % waited`;
  $("peak").textContent = `Down and to the left is better. The large point is ${ours.name}; small ones are headrooms of the reactive imitations.${peak ? ` The static peak is not drawn: it costs $${fix(peak.dollars, 2)}.` : ""}`;
  const letter = (at) => String.fromCharCode(65 + at);
  // Where two are the same, one point has the letters of both.
  const alike = (it) => shown.map((other, at) => other.dollars == it.dollars && other.unmet_share == it.unmet_share ? letter(at) : "").join("");
  const named = shown.map((it, at) => ({
    x: it.dollars, y: 100 * it.unmet_share, letter: alike(it)[0] == letter(at) ? alike(it) : "", name: it.policy, told: says(it), size: at == 0 ? 16 : 9, colour: policies.find((one) => one.name == it.policy)?.colour || "--soft",
  }));
  const far = Math.max(...named.map((it) => it.x)), most = Math.max(...named.map((it) => it.y));
  const cloud = data.headrooms.map((it) => ({ x: it.dollars, y: 100 * it.unmet_share, name: it.policy, told: says(it), size: 4, colour: "--soft" })).filter((it) => it.x <= far && it.y <= most);
  scatter($("trade"), "Dollars, and the share of demand that waited", { label: "dollars", say: (dollars) => `$${fix(dollars, far < 20 ? 1 : 0)}` }, { label: "demand that waited (%)" }, [...cloud, ...named]);
  $("trade").parentElement.append(el("ul", { class: "names" }, ...shown.map((it, at) => el("li", {}, el("b", {}, letter(at)), it.policy))));
}

function forecast() {
  if (!data.band) {
    $("coverage").textContent = "No forecast was made.";
    $("covered").remove();
    return;
  }
  const [demand, expected, q90, q95] = data.band, { coverage, pinball } = found;
  $("coverage").textContent = [
    `As it stood when a launch would still have been in time${data.bin_minutes == 1 ? "" : ", in the mean of each interval"}.`,
    coverage ? `Demand stayed below the 90 % line in ${fix(100 * coverage[0], 1)} % of the minutes, below the 95 % line in ${fix(100 * coverage[1], 1)} %.` : "",
    pinball ? `Its mean pinball loss was ${fix(pinball.forecast, 3)} nodes, against ${fix(pinball.persistence, 3)} of a forecast that says “as it is”${pinball.seasonal == null ? "" : `, and ${fix(pinball.seasonal, 3)} of one that says “as yesterday”`}, each with a margin.` : "",
  ].filter(Boolean).join(" ");
  overTime($("band"), "The forecast with its band, and what came, over time", "nodes", xs, () => ({
    lines: [
      [series("expected", "--c2", 2), expected], [series("90 % line", "--c3", 2, { dash: DASHES[1], width: 1 }), q90], [series("95 % line", "--c4", 2, { dash: DASHES[2], width: 1 }), q95],
      [series("demand", "--ink", 2, { width: 1 }), demand],
    ],
    bands: [{ series: [3, 1], fill: ink("--band") }],
  }));
  const below = (line, places) => `${fix(100 * places.filter((at) => demand[at] <= line[at]).length / places.length, 1)} %`;
  const mean = (column, places) => fix(places.reduce((sum, at) => sum + column[at], 0) / places.length, 2);
  table($("covered-days"), ["day from (UTC)", "mean demand", "mean expected", "below the 90 % line", "below the 95 % line"], byDay(expected).map(([day, places]) =>
    [dayOf(day), mean(demand, places), mean(expected, places), below(q90, places), below(q95, places)]));
}

function overTheDay() {
  overDay($("launches"), "Launches in each hour of the day", "nodes launched", 0, [{ ...ours, values: outcome(ours.name).launches_by_hour }],
    leading.slice(1).map((it) => ({ ...it, values: outcome(it.name).launches_by_hour })));
  const hourly = (name) => outcome(name).dollars_by_hour, both = rates.spot_share > 0, sum = (hour) => hour.on_demand + hour.spot, total = outcome(ours.name);
  $("markets").textContent = `What an hour costs ${ours.name} in the mean, at each hour of the day. ` + (both ? `In all $${fix(total.on_demand_dollars, 2)} on demand and $${fix(total.spot_dollars, 2)} on spot: ${rates.on_demand_base} node${rates.on_demand_base == 1 ? " is" : "s are"} on demand, and of those above ${fix(100 * rates.spot_share, 0)} % on spot.` : "All of it is on demand.") + " Lines are what others cost.";
  const markets = [["on demand", "on_demand", "--c0"], ["spot", "spot", "--spot"]].slice(0, both ? 2 : 1).map(([name, key, colour]) => ({ name: both ? `${ours.name}, ${name}` : ours.name, colour, values: hourly(ours.name).map((hour) => hour[key]) }));
  const beside = leading.slice(1).map((it) => ({ ...it, values: hourly(it.name).map(sum) }));
  overDay($("dollars"), "Dollars by market and hour of the day", "dollars an hour", 3, markets, beside);
  table($("hours"), ["hour (UTC)", ...leading.map((it) => `${it.name}: launched`), ...[...markets, ...beside].map((it) => `${it.name}: $ an hour`)], [...Array(24).keys()].map((hour) =>
    [`${hour}:00`, ...leading.map((it) => outcome(it.name).launches_by_hour[hour]), ...[...markets, ...beside].map((it) => fix(it.values[hour], 3))]));
}

function tables() {
  const ratio = (it) => it ? fix(it.ratio, 3) + (it.low == null ? " (too short)" : ` (${fix(it.low, 3)}–${fix(it.high, 3)})`) : "";
  table($("table"), ["policy", "node-hours", "dollars", "waited", "minutes over", "launches", "cost", "x optimum", "node-fleet to this (95 %)"], found.outcomes.map((it) =>
    [it.policy, fix(it.node_hours, 0), fix(it.dollars, 2), `${fix(100 * it.unmet_share, 3)} %`, it.minutes_over, it.launches, fix(it.cost, 0), fix(it.to_clairvoyant, 3), ratio(it.ours_to_this)]));
  $("many").textContent = `${data.steps_in_all} turns changed the fleet; ` + (data.steps.length < data.steps_in_all ? `the latest ${data.steps.length} are shown.` : "all are shown.");
  const causes = { pending_pods: "pods waited", below_minimum: "below the minimum", cpu: "CPU above its threshold", forecast: "the forecast wanted them", above_maximum: "above the maximum", underused: "idle long enough", consolidated: "room on fewer nodes" };
  table($("steps"), ["time (UTC)", "nodes", "why", "demand", "served by", "forecast: buy to / hold"], data.steps.map((it) =>
    [clock((data.start + it.minute) * 60), (it.nodes > 0 ? "+" : "") + it.nodes, causes[it.cause] || it.cause, fix(it.demand, 2), it.ready, it.wanted ? `${it.wanted.buy} / ${it.wanted.hold}` : "no say"]));
}

// A number and its % stay on one line.
$("summary").textContent = data.summary.replaceAll(" %", "\u00a0%");
$("about").textContent = about();
capacity();
trade();
forecast();
overTheDay();
tables();
