// The pages of `nemoflash compare` and `profile`: made by the built command, opened as files. They ask for nothing and break no rule.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { launch } from './browser.mjs';

const target = process.env.CARGO_TARGET_DIR ?? fileURLToPath(new URL('../../target', import.meta.url));
const command = join(target, 'debug', process.platform === 'win32' ? 'nemoflash.exe' : 'nemoflash');
// Results that the suite of the command writes.
const results = join(target, 'tmp', 'compare');
// Pages that it writes.
const studies = join(target, 'tmp', 'profile');
const SIZES = [[1280, 900], [390, 844]];

const folder = mkdtempSync(join(tmpdir(), 'nemoflash-'));
let browser;
before(async () => (browser = await launch()));
after(async () => {
  await browser?.close();
  rmSync(folder, { recursive: true });
});

function report(name, files) {
  assert.ok(existsSync(join(results, files[0])), 'run `cargo test -p nemoflash-cli compare::` first');
  const path = join(folder, name);
  execFileSync(command, ['compare', '--html', path, ...files.map((file) => join(results, file))], { stdio: 'pipe' });
  return path;
}

/** Opens a file; all that the page says, asks for or breaks, and how far it is wider than the window. */
async function look(path, [width, height] = SIZES[0], colorScheme = 'light') {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme });
  const page = await context.newPage();
  const faults = [];
  page.on('pageerror', (error) => faults.push(String(error)));
  page.on('console', (message) => faults.push(message.text()));
  page.on('dialog', (dialog) => (faults.push(`dialog ${dialog.message()}`), dialog.dismiss()));
  const url = String(pathToFileURL(path));
  page.on('request', (request) => request.url() !== url && faults.push(`asks for ${request.url()}`));
  try {
    await page.goto(url);
    const seen = await page.evaluate(() => ({
      heading: document.querySelector('h1')?.textContent,
      styled: getComputedStyle(document.body).maxWidth,
      ground: getComputedStyle(document.body).backgroundColor,
      wider: document.documentElement.scrollWidth - innerWidth,
      scripts: document.scripts.length,
      bars: [...document.querySelectorAll('.bar')].filter((bar) => bar.checkVisibility()).map((bar) => bar.getBoundingClientRect().width),
      unnamed: [...document.querySelectorAll('svg')].filter((svg) => !svg.closest('[aria-hidden], [role=img]')).length,
    }));
    return { faults, ...seen };
  } finally {
    await context.close();
  }
}

test('a report asks for nothing, breaks no rule, and fits', async () => {
  const path = report('full.html', ['h100.json', 'software.jsonl', 'swiftshader.json']);
  const grounds = new Set();
  for (const size of SIZES) {
    for (const scheme of ['light', 'dark']) {
      const { faults, styled, wider, bars, ground, unnamed } = await look(path, size, scheme);
      assert.deepEqual(faults, []);
      // The policy let the style through.
      assert.notEqual(styled, 'none');
      assert.ok(wider <= 0, `${wider} px too wide at ${size}`);
      assert.ok(bars.length > 10 && bars.every((width) => width >= 1), 'every bar can be seen');
      assert.equal(unnamed, 0);
      grounds.add(ground);
    }
  }
  assert.equal(grounds.size, 2, 'light and dark differ');
});

for (const name of ['operators', 'depth-width']) {
  test(`the page of profile ${name} asks for nothing, breaks no rule, and fits`, async () => {
    const path = join(studies, `${name}.html`);
    assert.ok(existsSync(path), 'run `cargo test -p nemoflash-cli profile::` first');
    for (const size of SIZES) {
      for (const scheme of ['light', 'dark']) {
        const { faults, styled, wider, heading, scripts, unnamed } = await look(path, size, scheme);
        assert.deepEqual(faults, []);
        assert.notEqual(styled, 'none');
        assert.ok(wider <= 0, `${wider} px too wide at ${size}`);
        assert.ok(heading.length > 10);
        assert.equal(scripts + unnamed, 0);
      }
    }
  });
}

test('texts of a file stay texts', async () => {
  const { faults, scripts, heading, wider } = await look(report('hostile.html', ['hostile.json']), SIZES[1]);
  assert.deepEqual(faults, []);
  assert.equal(scripts, 0);
  assert.match(heading, /<script>al/);
  assert.ok(wider <= 0, `${wider} px too wide`);
});

test('what a report must not have is found', async () => {
  const path = join(folder, 'bad.html');
  const good = readFileSync(report('good.html', ['hostile.json']), 'utf8');
  for (const [bad, word] of [
    ['<script>alert(1)</script>', /Content Security Policy/],
    ['<img src="https://example.invalid/x">', /example\.invalid/],
    ['<p style="color: red">', /Content Security Policy/],
    ['<style>p { color: red }</style>', /Content Security Policy/],
  ]) {
    writeFileSync(path, good.replace('</main>', `${bad}</main>`));
    assert.match((await look(path)).faults.join('\n'), word, bad);
  }
});
