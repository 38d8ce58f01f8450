// The page of `node-fleet simulate --html` as a browser sees it, of a recording with a gap and with a hostile name.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';
import puppeteer from 'puppeteer-core';

const DESK = { width: 1280, height: 900 };
const TELEPHONE = { width: 390, height: 844, deviceScaleFactor: 2, isMobile: true, hasTouch: true };
const PICTURES = process.env.NODE_FLEET_PAGE_PICTURES;
const VENDORED = join(dirname(fileURLToPath(import.meta.url)), '..', '..', 'src', 'cli', 'simulate', 'report', 'uplot');
const PLOTS = ['capacity', 'trade', 'band', 'launches', 'dollars'];
const folder = mkdtempSync(join(tmpdir(), 'node-fleet-report-'));
const report = join(folder, 'report.html');
let browser, data;

/** A daily curve of four days, minute by minute, without three hours of the third. */
function recording() {
  const begin = Date.UTC(2026, 0, 5) / 60000;
  const minutes = [...Array(4 * 1440).keys()].filter((minute) => minute < 3000 || minute >= 3180);
  const value = (minute) => (5 - 4 * Math.cos((2 * Math.PI * minute) / 1440) + 0.3 * Math.sin(minute / 7)).toFixed(3);
  return ['timestamp,value', ...minutes.map((minute) => `${new Date((begin + minute) * 60000).toISOString()},${value(minute)}`)].join('\n') + '\n';
}

before(async () => {
  const trace = join(folder, '<img src=x onerror="window.taken=1">.csv');
  writeFileSync(trace, recording());
  execFileSync(process.env.NODE_FLEET_BINARY, ['simulate', '--trace', trace, '--node-size', '1', '--html', report], { stdio: ['ignore', 'ignore', 'inherit'] });
  data = JSON.parse(/id="data">(.*?)<\/script>/s.exec(readFileSync(report, 'utf8'))[1]);
  // Nothing but this page is opened, so the sandbox, which root has not, is not missed.
  browser = await puppeteer.launch({ executablePath: process.env.CHROMIUM, args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'] });
});

after(async () => {
  await browser?.close();
  rmSync(folder, { recursive: true, force: true });
});

/** Opens the page where there is no network, and keeps what it asks for and what the browser says of it. */
async function open({ viewport = DESK, scheme = 'light' } = {}) {
  const page = await browser.newPage();
  const complaints = [], asked = [];
  page.on('console', (message) => complaints.push(message.text()));
  page.on('pageerror', (error) => complaints.push(String(error)));
  page.on('request', (request) => asked.push(request.url()));
  await page.setViewport(viewport);
  await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }]);
  await page.setOfflineMode(true);
  await page.goto(pathToFileURL(report).href);
  await settled(page);
  return { page, complaints, asked };
}

/** Waits until what was asked of the plots is drawn. */
const settled = (page) => page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));

/** Counts the colours of a plot's canvas, and gives the sum of its pixels to tell two drawings apart. */
const drawing = (page, plot) => page.$eval(`#${plot} canvas`, (canvas) => {
  const { data: pixels } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  const words = new Uint32Array(pixels.buffer);
  return { colours: new Set(words).size, drawn: words.reduce((sum, word, at) => (sum + word * (at + 1)) % 4294967291, 0) };
});

/** Where the plotted part of a plot lies in the window. */
async function box(page, plot) {
  const over = await page.$(`#${plot} .u-over`);
  await over.scrollIntoView();
  return over.boundingBox();
}

/** What the legend of a plot says, by name. */
const legend = async (page, plot) => Object.fromEntries(await page.$$eval(`#${plot} .u-series`, (rows) => rows.map((row) => [...row.children].map((cell) => cell.textContent))));
const range = (page, plot) => page.$eval(`section:has(> #${plot}) .controls output`, (output) => output.textContent);
const press = (page, plot, name) => page.$$eval(`section:has(> #${plot}) .controls button`, (buttons, text) => buttons.find((button) => button.textContent === text).click(), name);

/** The nodes of a policy, interval by interval. */
const nodes = (policy) => data.trajectories.find((it) => it.policy === policy).nodes.flatMap(([value, times]) => Array(times).fill(value));
const seconds = (clock) => Date.parse(`${clock.replace(' ', 'T')}:00Z`) / 1000;

test('the library is, byte for byte, the one of the package', () => {
  const from = dirname(createRequire(import.meta.url).resolve('uplot'));
  for (const [ours, theirs] of [['uPlot.iife.min.js', 'uPlot.iife.min.js'], ['uPlot.min.css', 'uPlot.min.css'], ['LICENSE', '../LICENSE']]) {
    assert.ok(readFileSync(join(VENDORED, ours)).equals(readFileSync(join(from, theirs))), ours);
  }
  assert.ok(readFileSync(report, 'utf8').includes(readFileSync(join(VENDORED, 'LICENSE'), 'utf8').trim()), 'a page that carries it carries its licence');
});

test('every plot is drawn, and the page asks nobody for anything', async () => {
  for (const [name, viewport] of [['desk', DESK], ['telephone', TELEPHONE]]) {
    for (const scheme of ['light', 'dark']) {
      const { page, complaints, asked } = await open({ viewport, scheme });
      for (const plot of PLOTS) assert.ok((await drawing(page, plot)).colours > 20, `${plot} on a ${name} in the ${scheme}`);
      const [wide, room] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
      assert.ok(wide <= room, `${name}: ${wide} pixels on ${room}`);
      if (PICTURES) await page.screenshot({ path: join(PICTURES, `report-${name}-${scheme}.png`), fullPage: true });
      assert.deepEqual([complaints, asked], [[], [pathToFileURL(report).href]]);
      await page.close();
    }
  }
});

test('dragging shows a stretch in all plots over time, and a double click shows all of it again', async () => {
  const { page } = await open();
  const [whole, before_] = [await range(page, 'capacity'), await drawing(page, 'capacity')];
  const { x, y, width, height } = await box(page, 'capacity');
  await page.mouse.move(x + 0.25 * width, y + 0.3 * height);
  await page.mouse.down();
  await page.mouse.move(x + 0.5 * width, y + 0.6 * height, { steps: 5 });
  await page.mouse.up();
  await settled(page);
  const shown = await range(page, 'capacity');
  const [from, to] = shown.split(' to ').map(seconds);
  const day = 86400;
  assert.ok(Math.abs(to - from - day / 2) < day / 50 && Math.abs(from - data.start * 60 - day / 2) < day / 50, `a quarter of two days: ${shown}`);
  assert.equal(await range(page, 'band'), shown);
  assert.notEqual((await drawing(page, 'capacity')).drawn, before_.drawn);
  await page.mouse.click(x + 0.5 * width, y + 0.5 * height, { count: 2 });
  await settled(page);
  assert.deepEqual([await range(page, 'capacity'), await range(page, 'band')], [whole, whole]);
  await page.close();
});

test('pointing at a plot tells the values of that time, in the other plots over time, too', async () => {
  const { page } = await open();
  const { x, y, width, height } = await box(page, 'capacity');
  await page.mouse.move(x + 0.7 * width, y + 0.5 * height);
  await settled(page);
  const told = await legend(page, 'capacity');
  const at = (seconds(told['time (UTC)']) / 60 - data.start) / data.bin_minutes;
  assert.ok(Math.abs(at / data.highest.length - 0.7) < 0.01, told['time (UTC)']);
  assert.equal(told.demand, data.highest[at].toFixed(2));
  for (const { policy } of data.trajectories) assert.equal(Number.parseInt(told[policy], 10), nodes(policy)[at], policy);
  const forecast = await legend(page, 'band');
  assert.deepEqual([forecast['time (UTC)'], forecast['95 % line']], [told['time (UTC)'], data.band[3][at].toFixed(2)]);
  const hours = await box(page, 'dollars');
  await page.mouse.move(hours.x + hours.width / 2, hours.y + hours.height / 2);
  await settled(page);
  const hour = await legend(page, 'dollars'), paid = data.found.outcomes[0].dollars_by_hour[Number.parseInt(hour['hour (UTC)'], 10)];
  assert.deepEqual([hour['node-fleet, spot'], hour['node-fleet, on demand']], [paid.spot.toFixed(3), paid.on_demand.toFixed(3)]);
  await page.close();
});

test('nothing is told of a gap', async () => {
  const { page } = await open();
  const { x, y, width, height } = await box(page, 'capacity');
  const gap = data.highest.indexOf(null);
  assert.ok(gap > 0 && data.highest.filter((value) => value === null).length === 180);
  await page.mouse.move(x + (width * (gap + 90)) / data.highest.length, y + height / 2);
  await settled(page);
  const told = await legend(page, 'capacity');
  assert.ok(Number.isNaN(Number.parseInt(told.demand, 10)) && Number.isNaN(Number.parseInt(told['node-fleet'], 10)), JSON.stringify(told));
  await page.close();
});

test('the point of each policy is told of, by keyboard and by mouse', async () => {
  const { page } = await open();
  const told = () => page.$eval('.readout', (output) => output.textContent);
  await page.focus('#trade .u-over');
  const said = new Map();
  for (let at = 0; at < data.found.outcomes.length + data.headrooms.length; at++) {
    await page.keyboard.press('ArrowRight');
    const [x, y] = await page.$eval('#trade', (plot) => [plot.querySelector('.u-cursor-x').getBoundingClientRect().right, plot.querySelector('.u-cursor-y').getBoundingClientRect().bottom]);
    said.set(await told(), [x, y]);
  }
  const text = ({ policy, dollars }) => [...said.keys()].find((it) => it.startsWith(`${policy}: $${dollars.toFixed(2)}, `));
  const drawn = data.found.outcomes.filter((it) => it.policy !== 'static peak');
  for (const it of drawn) assert.ok(text(it), `${it.policy} among ${[...said.keys()].join('; ')}`);
  // The dearest lies apart from the others.
  const dearest = text(drawn.reduce((most, it) => (it.dollars > most.dollars ? it : most)));
  await page.keyboard.press('ArrowLeft');
  assert.notEqual(await told(), dearest);
  await page.mouse.move(...said.get(dearest));
  await settled(page);
  assert.equal(await told(), dearest);
  await page.close();
});

test('all of it is done without a mouse', async () => {
  const { page } = await open({ viewport: TELEPHONE });
  const whole = await range(page, 'capacity');
  await press(page, 'capacity', 'Closer');
  await settled(page);
  const closer = await range(page, 'capacity');
  await press(page, 'band', 'Later');
  await settled(page);
  const later = await range(page, 'capacity');
  assert.equal(new Set([whole, closer, later]).size, 3);
  const [[from, to], [begin, end]] = [closer, later].map((text) => text.split(' to ').map(seconds));
  assert.ok(begin > from && end - begin === to - from, `${closer}, then ${later}`);
  await press(page, 'capacity', 'Whole');
  await settled(page);
  assert.equal(await range(page, 'capacity'), whole);

  await page.focus('#capacity .u-over');
  await page.keyboard.press('ArrowRight');
  const first = (await legend(page, 'capacity'))['time (UTC)'];
  await page.keyboard.press('ArrowRight');
  assert.ok(seconds((await legend(page, 'capacity'))['time (UTC)']) > seconds(first));

  const before_ = await drawing(page, 'capacity');
  const name = await page.evaluateHandle(() => [...document.querySelectorAll('#capacity .u-legend button')].find((it) => it.textContent === 'static peak'));
  assert.equal(await name.evaluate((it) => it.getAttribute('aria-pressed')), 'false');
  await name.focus();
  await page.keyboard.press('Enter');
  await settled(page);
  assert.equal(await name.evaluate((it) => it.getAttribute('aria-pressed')), 'true');
  assert.notEqual((await drawing(page, 'capacity')).drawn, before_.drawn);
  await page.close();
});

test('night and a wider window find what was shown still there', async () => {
  const { page, complaints } = await open();
  await press(page, 'capacity', 'Closer');
  await settled(page);
  const [shown, before_] = [await range(page, 'capacity'), await drawing(page, 'capacity')];
  await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: 'dark' }]);
  await page.setViewport({ ...DESK, width: 1000 });
  await page.waitForFunction((width) => document.querySelector('#capacity .uplot canvas').getBoundingClientRect().width < width, {}, 1000);
  await settled(page);
  assert.equal(await range(page, 'capacity'), shown);
  assert.notEqual((await drawing(page, 'capacity')).drawn, before_.drawn);
  assert.equal((await page.$$('.uplot')).length, PLOTS.length);
  assert.deepEqual(complaints, []);
  await page.close();
});

test('what is drawn is told in tables, too', async () => {
  const { page } = await open();
  const cells = (table) => page.$$eval(`#${table} tbody tr`, (rows) => rows.map((row) => [...row.children].map((cell) => cell.textContent)));
  const [days, covered, hours] = [await cells('days'), await cells('covered-days'), await cells('hours')];
  assert.deepEqual([days.map(([day]) => day), covered.length, hours.length], [['2026-01-07', '2026-01-08'], 2, 24]);
  const waited = data.trajectories[0].days.map((day) => day.unmet.toFixed(1));
  assert.deepEqual(days.map((row) => row[3]), waited);
  assert.equal(hours.reduce((sum, row) => sum + Number(row[1]), 0), data.found.outcomes[0].launches);
  assert.equal((await cells('table')).length, data.found.outcomes.length);
  await page.close();
});

test('a hostile name is text, and markup that came in all the same would not run', async () => {
  const { page } = await open();
  assert.match(await page.$eval('#about', (part) => part.textContent), /<img src=x onerror=/);
  const tried = await page.evaluate(() => ['<img src=x onerror="window.taken=1">', '<p style="color:red">'].map((markup) => {
    try {
      document.body.insertAdjacentHTML('beforeend', markup);
      return 'was let through';
    } catch (error) {
      return error.name;
    }
  }));
  assert.deepEqual([tried, await page.evaluate(() => [document.images.length, 'taken' in window])], [['TypeError', 'TypeError'], [0, false]]);
  await page.close();
});
