// The engine in Chromium: the same answers as everywhere, on each device, and what happens when things go wrong.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { GOLDEN, root, site, tell } from './harness.mjs';

const here = site();
const { fresh } = here;

for (const [name, options, subgroup] of [
  ['the GPU', { device: 'gpu' }, 4],
  ['the GPU without subgroups', { device: 'gpu', deny: ['subgroups'] }, null],
  ['the CPU', { device: 'cpu' }, null],
  ['the CPU, in the page itself', { device: 'cpu', where: 'page' }, null],
]) {
  test(`golden tokens on ${name}`, () =>
    fresh(async (page) => {
      const got = await tell(page, options);
      assert.deepEqual(got.ids, GOLDEN, JSON.stringify(got));
      assert.equal(got.subgroup, subgroup);
      assert.equal(got.end, 'length');
      assert.deepEqual(got.stages, ['device', 'files', 'weights', 'compile', 'ready']);
      assert.match(got.text, /^, and then he went to the King/);
    }));
}

// All examples where there are subgroups; without, at most four of each, as the self-check has them.
for (const [deny, examples] of [[[], 0], [['subgroups'], 4]]) {
  test(`every operator against its twin${deny.length ? ', without subgroups' : ''}`, { timeout: 600_000 }, () =>
    fresh(async (page) => {
      const results = await page.evaluate(async ({ deny, examples }) => {
        const { load } = await import('/nemoflash/index.js');
        const engine = await load('/fables/', { device: 'gpu', deny, context: 64 });
        return engine.selfCheck({ examples });
      }, { deny, examples });
      assert.ok(results.length >= 20, `${results.length} operators`);
      for (const { name, result, faults } of results) assert.equal(result, 'pass', `${name}: ${faults}`);
      const run = results.reduce((sum, { examples }) => sum + examples, 0);
      console.log(`${results.length} operators, ${run} examples`);
    }));
}

test('files of one\'s own', () =>
  fresh(async (page) => {
    const ids = await page.evaluate(async () => {
      const { load } = await import('/nemoflash/index.js');
      const names = ['config.json', 'tokenizer.json', 'model.safetensors'];
      const files = await Promise.all(names.map(async (name) => new File([await (await fetch(`/fables/${name}`)).blob()], name)));
      const engine = await load({ files }, { device: 'cpu' });
      const answer = engine.generate('Once upon a time', { maxTokens: 8 });
      for await (const _ of answer);
      const missing = await load({ files: files.slice(1) }).catch(({ code, message }) => `${code}: ${message}`);
      return { ids: (await answer.usage).ids, missing };
    });
    assert.deepEqual(ids.ids, GOLDEN.slice(0, 8));
    assert.match(ids.missing, /^files: config.json is missing/);
  }));

test('stop, a lost device, a panic: the engine goes on', () =>
  fresh(async (page) => {
    const got = await page.evaluate(async () => {
      const { load } = await import('/nemoflash/index.js');
      const engine = await load('/fables/', { device: 'gpu', context: 256 });
      const ids = async (options) => {
        const answer = engine.generate('Once upon a time', { maxTokens: 6, ...options });
        for await (const _ of answer);
        return (await answer.usage).ids;
      };
      const code = (promise) => promise.then(() => 'no error', ({ code }) => code);
      const stop = new AbortController();
      const answer = engine.generate('Once upon a time', { maxTokens: 200, signal: stop.signal });
      for await (const { tokens } of answer) if (tokens === 3) stop.abort();
      const { end, ids: some } = await answer.usage;
      // Breaking out of the loop stops it too.
      for await (const _ of engine.generate('Once upon a time', { maxTokens: 200 })) break;
      await new Promise((done) => setTimeout(done, 3000));
      const afterBreak = await ids();
      await engine.loseDevice();
      const lost = await code(ids());
      const begun = performance.now();
      const afterLoss = await ids();
      const seconds = (performance.now() - begun) / 1000;
      const busy = engine.generate('Once', { maxTokens: 4 });
      const second = await code(ids());
      for await (const _ of busy);
      const panic = await code(engine.post({ kind: 'panic' }));
      const afterPanic = await ids();
      const wrong = await code(ids({ temperature: -1 }));
      const long = await code(ids.call(null, {}).then(() => engine.generate('Once '.repeat(2000)).usage));
      return { end, some: some.length, afterBreak, lost, afterLoss, seconds, second, panic, afterPanic, wrong, long };
    });
    const six = GOLDEN.slice(0, 6);
    assert.equal(got.end, 'aborted');
    assert.ok(got.some >= 3 && got.some < 20, `${got.some} tokens after stop`);
    assert.deepEqual([got.afterBreak, got.afterLoss, got.afterPanic], [six, six, six]);
    assert.deepEqual([got.lost, got.second, got.panic, got.wrong, got.long], ['device', 'busy', 'panic', 'parameter', 'prompt']);
    console.log(`from the loss of the device to the answer: ${got.seconds.toFixed(1)} s`);
  }));

test('no WebGPU: the CPU runs it, or the error says so', () =>
  fresh(async (page) => {
    const got = await page.evaluate(async () => {
      Object.defineProperty(navigator, 'gpu', { value: undefined });
      const { load } = await import('/nemoflash/index.js');
      const engine = await load('/fables/', { where: 'page', cache: false });
      const { device } = await engine.info();
      const error = await load('/fables/', { where: 'page', device: 'gpu' }).catch(({ code, message }) => `${code}: ${message}`);
      return { device, error };
    });
    assert.equal(got.device, 'cpu');
    assert.match(got.error, /^no_adapter: this browser has no WebGPU/);
  }));

test('README, as written', () =>
  fresh(async (page) => {
    const [, html] = /```html\n([^]*?)```/.exec(readFileSync(`${root}README.md`, 'utf8'));
    assert.ok(html.trim().split('\n').length <= 15);
    await page.route('**/readme.html', (route) => route.fulfill({ body: html, contentType: 'text/html' }));
    await page.goto(`${here.server.url}readme.html`);
    await page.waitForFunction(() => document.querySelector('#story').textContent.length > 60);
  }));

test('addresses are relative to the page; what is none is said so', () =>
  fresh(async (page) => {
    await page.evaluate(() => document.head.append(Object.assign(document.createElement('base'), { href: '/models/elsewhere/' })));
    for (const where of ['worker', 'page']) assert.deepEqual((await tell(page, { source: '../fables', where, tokens: 1 })).ids, [GOLDEN[0]]);
    const got = await tell(page, { source: 'http://' });
    assert.match(`${got.code}: ${got.message}`, /^parameter: http:\/\/ is not an address/);
  }));

test('one version: package, JavaScript, Rust', () =>
  fresh(async (page) => {
    const [, crate] = /\[workspace\.package\]\nversion = "(.*)"/.exec(readFileSync(`${root}Cargo.toml`, 'utf8'));
    assert.equal(JSON.parse(readFileSync(`${root}wasm/package.json`)).version, crate);
    assert.equal(await page.evaluate(async () => (await import('/nemoflash/index.js')).version), crate);
    assert.equal((await tell(page, { tokens: 1 })).version, crate);
  }));

test('the wasm is small', () => {
  const { gzip } = JSON.parse(readFileSync(`${root}wasm/dist/size.json`));
  assert.ok(gzip <= 2 << 20, `${gzip} bytes`);
});
