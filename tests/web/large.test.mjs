// A stand-in of full size (Nemotron-Flash 1B, random weights, 1.9 GB) streams through the page: its memory stays flat.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { launch, open } from './browser.mjs';
import { serve } from './server.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));
const MOST = 256 << 20;

test('1.9 GB through less than 256 MiB of wasm', { timeout: 600_000 }, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'nemoflash-'));
  const built = `${root}target/debug/nemoflash`;
  const [command, first] = existsSync(built) ? [built, []] : ['cargo', ['run', '-p', 'nemoflash-cli', '--']];
  execFileSync(command, [...first, 'synthesize', '--arch', 'nemotron-flash-1b', `${folder}/model`], { cwd: root, stdio: 'ignore' });
  const server = await serve({ '/': `${root}tests/web/blank/`, '/nemoflash/': `${root}wasm/dist/`, '/large/': `${folder}/model/` });
  const browser = await launch();
  try {
    const { page } = await open(await browser.newContext(), server.url);
    const got = await page.evaluate(async () => {
      const { load } = await import('/nemoflash/index.js');
      const stop = new AbortController();
      const begun = performance.now();
      let last;
      const wasm = [];
      const onProgress = (progress) => {
        last = { ...progress, seconds: (performance.now() - begun) / 1000 };
        if (progress.stage === 'weights') wasm.push(progress.wasmBytes);
        // Its 256 meta tokens would take a software GPU minutes.
        if (progress.stage === 'compile') stop.abort();
      };
      const options = { device: 'gpu', weights: 'q4', cache: false, signal: stop.signal, onProgress };
      const code = await load('/large/', options).then(() => 'loaded', ({ code, message }) => `${code}: ${message}`);
      return { code, last, most: Math.max(...wasm), first: wasm[1] };
    });
    const { size } = statSync(`${folder}/model/model.safetensors`);
    assert.match(got.code, /^aborted/);
    assert.equal(got.last.fetched, size);
    console.log(`${got.last.seconds.toFixed(0)} s, wasm ${(got.most / (1 << 20)).toFixed(0)} MiB at most`);
    assert.ok(got.most < MOST, `${got.most} bytes`);
  } finally {
    await browser.close();
    await server.close();
    rmSync(folder, { recursive: true, force: true });
  }
});
