"use strict";
// What the plots have in common: colours by day and by night, a size that follows the window, a legend and a cursor that
// the keyboard reaches, and, over time, one stretch that all of them show.
const FONT = "12px system-ui, sans-serif", INKS = ["--c0", "--c1", "--c2", "--c3", "--c4"], DASHES = [undefined, [7, 4], [2, 3]];
const plots = [], probe = document.createElement("i");
probe.hidden = true;
document.body.append(probe);

/** Makes an element of text and other elements. */
function el(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** What a colour of the style comes to by day or by night: a canvas knows no variables. */
function ink(name) {
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}

const fix = (value, digits) => value == null ? "—" : value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const clock = (seconds) => new Date(seconds * 1000).toISOString().slice(0, 16).replace("T", " ");

/** A line, or bars, with a name that hides and shows it. */
const series = (name, colour, digits, more) => ({
  label: el("button", { type: "button", "aria-pressed": "true" }, name), stroke: ink(colour), width: 1.5, points: { show: false },
  value: (u, value) => fix(value, digits), ...more,
});
const axis = (label, more) => ({
  label, stroke: ink("--soft"), font: FONT, labelFont: FONT, labelSize: 20, grid: { stroke: ink("--line"), width: 1 }, ticks: { stroke: ink("--line"), width: 1, size: 5 }, ...more,
});
/** An axis whose numbers are as wide as they are. */
const upright = (label, digits) => axis(label, {
  size: (u, texts) => 16 + 7 * Math.max(2, ...(texts || []).map((text) => text.length)), gap: 4,
  values: (u, ticks) => ticks.map((tick) => digits === undefined ? String(+tick.toPrecision(6)) : fix(tick, digits)),
});
/** From nothing to a little above the highest that is seen. */
const fromZero = (u, least, most) => [0, most > 0 ? most * 1.06 : 1];

/**
 * Draws a plot, and again when day becomes night. `make` gives its options and its columns; `stop`, where the keyboard
 * moves the cursor from a place in the columns, so many steps on.
 */
function plot(place, title, make, stop) {
  const it = { place, made: undefined };
  const draw = () => {
    const before = it.made, [options, columns] = make();
    options.series.forEach((one, at) => { if (before) one.show = before.series[at].show; });
    const pressed = (u, at) => at > 0 && u.series[at].label.setAttribute?.("aria-pressed", String(u.series[at].show));
    const hooks = { ...options.hooks, setSeries: [pressed], ready: [(u) => {
      u.series.forEach((one, at) => pressed(u, at));
      u.root.querySelectorAll(".u-series").forEach((row, at) => { row.style.order = at == 0 ? -1 : u.series[at].rank ?? at; });
    }] };
    before?.destroy();
    it.made = new uPlot({
      width: place.clientWidth, height: innerWidth < 600 ? 270 : 320, ...options, hooks,
      legend: { markers: { width: 3, dash: (u, at) => u.series[at].dash ? "dashed" : "solid", stroke: (u, at) => u.series[at].stroke(u, at) }, ...options.legend },
    }, columns, place);
    if (before?.scales.x.time) it.made.setScale("x", { min: before.scales.x.min, max: before.scales.x.max });
    const { over } = it.made;
    over.tabIndex = 0;
    over.setAttribute("role", "group");
    over.setAttribute("aria-label", `${title}. Left and right move the cursor.`);
    over.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!way) return;
      event.preventDefault();
      it.made.setCursor(stop(it.made, way));
    });
  };
  draw();
  it.draw = draw;
  plots.push(it);
  new ResizeObserver(() => it.made.setSize({ width: place.clientWidth, height: it.made.height })).observe(place);
  return it;
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plots.forEach((it) => it.draw()));

/** Where the cursor comes to from its place among the columns: one on, or as many as four pixels hold. */
function along(u, way) {
  const [xs] = u.data, { min, max } = u.scales.x, pixels = u.bbox.width / devicePixelRatio;
  const step = Math.max(1, Math.round(4 * (u.valToIdx(max) - u.valToIdx(min)) / pixels));
  const from = u.cursor.idx ?? u.valToIdx((min + max) / 2) - way * step;
  const to = Math.max(u.valToIdx(min), Math.min(u.valToIdx(max), from + way * step));
  return { left: u.valToPos(xs[to], "x"), top: u.bbox.height / devicePixelRatio / 2 };
}

/** Buttons above a plot, for those who do not drag, and what they lead to. */
function controls(place, buttons, output) {
  place.before(el("div", { class: "controls" }, ...buttons.map(([name, press]) => {
    const button = el("button", { type: "button" }, name);
    button.addEventListener("click", press);
    return button;
  }), ...(output ? [output] : [])));
}

const TIMES = [[86400 * 365, "{YYYY}", null], [86400 * 28, "{YYYY}-{MM}", null], [86400, "{MM}-{DD}", "\n{YYYY}"], [60, "{HH}:{mm}", "\n{YYYY}-{MM}-{DD}"]]
  .map(([least, always, year]) => [least, always, year, null, least < 86400 ? "\n{MM}-{DD}" : null, null, null, null, 1]);
// A step has corners while its intervals can be told apart. Beyond that each column of pixels shows its lowest and highest.
const stepped = uPlot.paths.stepped({ align: 1 }), thinned = uPlot.paths.linear();
const steps = (u, at, from, to) => (to - from < 2 * u.bbox.width ? stepped : thinned)(u, at, from, to);

/** Lines over time. All plots of this kind show the same stretch, and what one points at, the others point at, too. */
function overTime(place, title, unit, xs, make) {
  const shown = el("output", {});
  const show = (from, to) => plots.filter((it) => it.made.scales.x.time).forEach((it) => it.made.setScale("x", { min: from, max: to }));
  /** Shows what lies between two shares of what is shown, at least ten intervals of it, and no more than there is. */
  const stretch = (from, to) => {
    const [first, last] = [xs[0], xs.at(-1)], { min, max } = it.made.scales.x;
    const width = Math.min(last - first, Math.max((to - from) * (max - min), Math.min(last - first, 10 * (xs[1] - xs[0]))));
    const begin = Math.max(first, Math.min(last - width, min + (from + to) / 2 * (max - min) - width / 2));
    show(begin, begin + width);
  };
  controls(place, [
    ["Whole", () => show(xs[0], xs.at(-1))], ["Closer", () => stretch(0.25, 0.75)], ["Wider", () => stretch(-0.5, 1.5)], ["Earlier", () => stretch(-0.5, 0.5)], ["Later", () => stretch(0.5, 1.5)],
  ], shown);
  const it = plot(place, title, () => {
    const { lines, ...more } = make();
    const x = { label: "time (UTC)", value: (u, value) => value == null ? "point at the plot" : clock(value) };
    return [{
      ...more, tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"), series: [x, ...lines.map(([line]) => line)],
      scales: { x: { time: true }, y: { range: fromZero } }, axes: [axis("time (UTC)", { values: TIMES, space: 60, size: 44 }), upright(unit)],
      cursor: { y: false, sync: { key: "time" }, drag: { x: true, y: false, dist: 5 } },
      hooks: { setScale: [(u, key) => { if (key == "x") shown.textContent = `${clock(u.scales.x.min)} to ${clock(u.scales.x.max)}`; }] },
    }, [xs, ...lines.map(([, column]) => column)]];
  }, along);
  return it;
}

/** Bars over the hours of the day: `stacks` lie on each other, `lines` run across them. */
function overDay(place, title, unit, digits, stacks, lines) {
  const hours = [...Array(24).keys()], bars = uPlot.paths.bars({ size: [0.8, 60] });
  const upTo = (last) => hours.map((hour) => stacks.slice(0, last + 1).reduce((sum, it) => sum + it.values[hour], 0));
  return plot(place, title, () => {
    const value = (values) => (u, drawn, at, hour) => hour == null ? "—" : fix(values[hour], digits);
    // The highest comes first: the others are drawn over it.
    const bar = ({ name, colour, values }) => series(name, colour, digits, { fill: ink(colour), width: 0, paths: bars, value: value(values) });
    const line = ({ name, colour, dash }) => series(name, colour, digits, { dash });
    return [{
      series: [{ label: "hour (UTC)", value: (u, hour) => hour == null ? "point at the plot" : `${hour}:00` }, ...stacks.map(bar).reverse(), ...lines.map(line)],
      scales: { x: { time: false, range: [-0.6, 23.6] }, y: { range: fromZero } },
      axes: [axis("hour of the day (UTC)", { values: (u, ticks) => ticks.map((hour) => `${hour}:00`), splits: () => [0, 6, 12, 18], size: 34, grid: { show: false } }), upright(unit)],
      cursor: { y: false, drag: { x: false, y: false } },
    }, [hours, ...stacks.map((it, at) => upTo(at)).reverse(), ...lines.map((it) => it.values)]];
  }, along);
}

/** Points by two figures, the chosen one the largest; those without a letter are only told of. */
function scatter(place, title, x, y, points) {
  const sorted = points.filter((it) => it.x != null).sort((one, other) => one.x - other.x);
  const told = el("output", { class: "readout" }, "Point at the plot.");
  const at = (u, it) => [u.valToPos(it.x, "x"), u.valToPos(it.y, "y")];
  // The point that the keyboard has come to: of two in one place the nearest would always be the same.
  let aimed;
  place.addEventListener("mousemove", () => { aimed = undefined; }, true);
  const nearest = (u) => {
    const away = (it) => Math.hypot(at(u, it)[0] - u.cursor.left, at(u, it)[1] - u.cursor.top) - it.size / 4;
    const [first] = [...sorted].sort((one, other) => away(one) - away(other));
    return u.cursor.left >= 0 && away(first) < 30 ? first : undefined;
  };
  // A letter stands right or left of its point, or as far above it as there is room, at the end of a line.
  const letters = (u) => {
    const { ctx, bbox } = u, unit = devicePixelRatio, room = 13 * unit, taken = [];
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    Object.assign(ctx, { font: `${13 * unit}px system-ui, sans-serif`, fillStyle: ink("--ink"), strokeStyle: ink("--soft"), lineWidth: unit, textAlign: "center", textBaseline: "middle" });
    // The chosen one has the first choice.
    for (const it of sorted.filter((one) => one.letter).sort((one, other) => other.size - one.size)) {
      const [left, top] = [u.valToPos(it.x, "x", true), u.valToPos(it.y, "y", true)], beside = (2 + it.size / 2 + 4 * it.letter.length) * unit;
      const clear = (one, a, b) => one === it || !one.letter || Math.hypot(u.valToPos(one.x, "x", true) - a, u.valToPos(one.y, "y", true) - b) > 9 * unit;
      const free = ([a, b]) => taken.every(([c, d]) => Math.abs(a - c) >= room || Math.abs(b - d) >= room) && sorted.every((one) => clear(one, a, b));
      const above = [...Array(12).keys()].map((step) => [left, top - (step + 2) * room]);
      const place = [[left + beside, top - 4 * unit], [left - beside, top - 4 * unit], ...above].find(free) || above[0];
      taken.push(place);
      if (place[0] == left) {
        ctx.beginPath();
        ctx.moveTo(left, top);
        ctx.lineTo(left, place[1] + room / 2);
        ctx.stroke();
      }
      ctx.fillText(it.letter, ...place);
    }
    ctx.restore();
  };
  const it = plot(place, title, () => {
    const dots = (one) => ({ paths: () => null, points: { show: true, size: one.size, width: 0, fill: ink(one.colour), stroke: ink(one.colour) }, stroke: ink(one.colour), label: one.name });
    return [{
      legend: { show: false }, series: [{}, ...sorted.map(dots)], axes: [axis(x.label, { values: (u, ticks) => ticks.map((tick) => x.say(tick)), space: 60, size: 34 }), upright(y.label)],
      scales: { x: { time: false, range: (u, least, most) => [least - 0.1 * (most - least || 1), most + 0.1 * (most - least || 1)] }, y: { range: fromZero } },
      cursor: { points: { show: false }, drag: { x: true, y: true, uni: 30, dist: 5 } },
      hooks: { draw: [letters], setCursor: [(u) => { const found = aimed ?? nearest(u); if (found) told.textContent = found.told; }] },
    }, [sorted.map((one) => one.x), ...sorted.map((one) => sorted.map((other) => one === other ? one.y : null))]];
  }, (u, way) => {
    aimed = sorted[(sorted.indexOf(aimed ?? nearest(u)) + way + sorted.length) % sorted.length];
    const [left, top] = at(u, aimed);
    return { left, top };
  });
  controls(place, [["Whole", () => it.made.setData(it.made.data)]]);
  place.after(told);
  return it;
}
