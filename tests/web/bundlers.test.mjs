// The package as npm packs it, in a bundle: what `new URL(..., import.meta.url)` names must come along, and work.
// Vite is tried by the page, and no bundler at all by the README's example.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import webpack from 'webpack';
import { launch, open } from './browser.mjs';
import { GOLDEN, root } from './harness.mjs';
import { serve } from './server.mjs';

const TOKENS = 8;

const ENTRY = `
  import { load } from 'nemoflash';
  globalThis.ids = (async () => {
    const engine = await load('/fables/', { device: 'cpu' });
    const answer = engine.generate('Once upon a time', { temperature: 0, maxTokens: ${TOKENS} });
    for await (const _ of answer);
    await engine.close();
    return (await answer.usage).ids;
  })();`;
const HTML = '<!doctype html><link rel="icon" href="data:," /><script src="main.js"></script>';

test('webpack 5: golden tokens from a bundle', { timeout: 120_000 }, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'nemoflash-'));
  const out = join(folder, 'out');
  let server, browser;
  try {
    const npm = (...args) => execFileSync('npm', args, { cwd: folder, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
    const [{ filename }] = JSON.parse(npm('pack', `${root}wasm`, '--json'));
    mkdirSync(join(folder, 'node_modules/nemoflash'), { recursive: true });
    execFileSync('tar', ['-xf', filename, '-C', 'node_modules/nemoflash', '--strip-components=1'], { cwd: folder });
    writeFileSync(join(folder, 'entry.js'), ENTRY);
    // `production` drops what it takes for unused; nothing else is configured.
    const stats = await promisify(webpack)({ context: folder, mode: 'production', entry: './entry.js', output: { path: out } });
    assert.deepEqual(stats.toJson({ errors: true, warnings: true }).errors, []);
    writeFileSync(join(out, 'index.html'), HTML);
    server = await serve({ '/': `${out}/`, '/fables/': `${root}models/fables/` });
    browser = await launch();
    const { page, errors } = await open(await browser.newContext(), server.url);
    assert.deepEqual(await page.evaluate(() => globalThis.ids), GOLDEN.slice(0, TOKENS));
    assert.deepEqual(errors, []);
    // The worker and the wasm came from the bundle.
    const paths = server.requests.map(({ path }) => path);
    assert.equal(paths.filter((path) => path.endsWith('.wasm')).length, 1, String(paths));
  } finally {
    await browser?.close();
    await server?.close();
    rmSync(folder, { recursive: true, force: true });
  }
});
