// Every Mermaid diagram of the documents is drawn, by Mermaid itself, in a real Chromium.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import puppeteer from 'puppeteer-core';

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const PICTURES = process.env.NODE_FLEET_PAGE_PICTURES;
let browser, page;

before(async () => {
  browser = await puppeteer.launch({ executablePath: process.env.CHROMIUM, args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'] });
  page = await browser.newPage();
  await page.addScriptTag({ path: join(dirname(createRequire(import.meta.url).resolve('mermaid')), 'mermaid.min.js') });
  await page.evaluate(() => mermaid.initialize({ startOnLoad: false, securityLevel: 'strict' }));
});

after(() => browser?.close());

/** Draws one, and gives how many nodes it has, or what is wrong with it. */
const draw = (text) => page.evaluate(async (it) => {
  try {
    const { svg } = await mermaid.render('diagram', it);
    document.body.innerHTML = svg;
    return { nodes: document.querySelectorAll('.node').length };
  } catch (error) {
    return { wrong: error.message };
  }
}, text);

/** The documents under the repository's control, those of a work in hand included. */
function documents() {
  const listed = execFileSync('git', ['-C', ROOT, 'ls-files', '--cached', '--others', '--exclude-standard', '*.md'], { encoding: 'utf8' });
  return listed.split('\n').filter(Boolean);
}

test('every diagram is drawn', async () => {
  const drawn = [];
  for (const file of documents()) {
    const diagrams = [...readFileSync(join(ROOT, file), 'utf8').matchAll(/```mermaid\n([\s\S]*?)```/g)];
    for (const [index, [, text]] of diagrams.entries()) {
      const { nodes, wrong } = await draw(text);
      assert.equal(wrong, undefined, `${file}: ${wrong}`);
      assert.ok(nodes >= 3, `${file}: only ${nodes} nodes`);
      drawn.push(file);
      if (PICTURES) await (await page.$('svg')).screenshot({ path: join(PICTURES, `${file.replaceAll('/', '-')}-${index}.png`) });
    }
  }
  assert.deepEqual([...new Set(drawn)].sort(), ['README.md', 'packaging/security.md', 'pulumi/README.md']);
});

test('a diagram that is wrong is found', async () => {
  const { wrong } = await draw('flowchart LR\n  a -->|b c\n');
  assert.match(wrong, /Parse error|Expecting/);
});
