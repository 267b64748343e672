// The engine in Chromium: the same answers as everywhere, on each device, and what happens when things go wrong.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { GOLDEN, root, site, tell } from './harness.mjs';

const here = site();
const { fresh } = here;

// On SwiftShader nearly all the time goes into compiling pipelines: 9 s for an engine, a quarter of one for each example of
// an operator; a step takes a third. So one engine serves all tests of a mode, and of each operator four examples run, as in
// the self-check. The native suites run all of them, on SwiftShader too, and `ALL_EXAMPLES=1` does here. With subgroups, in
// a worker, the same four run in the self-check of `page.test.mjs`.
const EXAMPLES = process.env.ALL_EXAMPLES ? 0 : 4;

/** In the page: an engine for the tests that follow, every device that is asked for counted. */
const prepare = (page, options) =>
  page.evaluate(async (options) => {
    const devices = (globalThis.devices = { made: 0, lost: [] });
    const { requestDevice } = GPUAdapter.prototype;
    GPUAdapter.prototype.requestDevice = async function (...args) {
      const device = await requestDevice.apply(this, args);
      devices.made += 1;
      void device.lost.then(({ reason }) => devices.lost.push(reason));
      return device;
    };
    globalThis.load = async (source) => (await import('/nemoflash/index.js')).load(source, { device: 'gpu', ...options });
    globalThis.engine = await globalThis.load('/fables/');
    globalThis.ids = async (options) => {
      const answer = engine.generate('Once upon a time', { temperature: 0, maxTokens: 6, ...options });
      for await (const _ of answer);
      return (await answer.usage).ids;
    };
    globalThis.code = (promise) => promise.then(() => 'no error', ({ code }) => code);
  }, options);
const operators = async (page) => {
  const results = await page.evaluate((examples) => engine.selfCheck({ examples }), EXAMPLES);
  assert.ok(results.length >= 20, `${results.length} operators`);
  for (const { name, result, faults } of results) assert.equal(result, 'pass', `${name}: ${faults}`);
  console.log(`${results.length} operators, ${results.reduce((sum, { examples }) => sum + examples, 0)} examples`);
};

test('the GPU', { timeout: 900_000 }, (t) =>
  fresh(async (page) => {
    await prepare(page, {});
    await t.test('golden tokens', async () => {
      assert.deepEqual(await page.evaluate(() => ids({ maxTokens: 16 })), GOLDEN.slice(0, 16));
      const info = await page.evaluate(() => engine.info());
      assert.equal(info.caps.subgroup, 4);
      assert.match(info.device, /swiftshader/i);
    });
    if (EXAMPLES === 0) await t.test('every operator against its twin', () => operators(page));
    await t.test('stop', async () => {
      const got = await page.evaluate(async () => {
        const stop = new AbortController();
        const answer = engine.generate('Once upon a time', { temperature: 0, maxTokens: 200, signal: stop.signal });
        for await (const { tokens } of answer) if (tokens === 3) stop.abort();
        const { end, ids } = await answer.usage;
        return { end, some: ids.length };
      });
      assert.equal(got.end, 'aborted');
      assert.ok(got.some >= 3 && got.some < 20, `${got.some} tokens after stop`);
    });
    await t.test('a lost device: an error, and the next call brings it back', async () => {
      const got = await page.evaluate(async () => {
        await engine.loseDevice();
        const lost = await code(ids());
        const begun = performance.now();
        const after = await ids();
        return { lost, after, seconds: (performance.now() - begun) / 1000 };
      });
      assert.equal(got.lost, 'device');
      assert.deepEqual(got.after, GOLDEN.slice(0, 6));
      console.log(`from the loss of the device to the answer: ${got.seconds.toFixed(1)} s`);
    });
  }));

// In the page itself, where devices can be counted: a worker takes its own with it.
test('the GPU without subgroups, in the page itself', { timeout: 900_000 }, (t) =>
  fresh(async (page) => {
    const errors = [];
    page.on('pageerror', (error) => errors.push(String(error)));
    await prepare(page, { deny: ['subgroups'], where: 'page' });
    const devices = () => page.evaluate(() => new Promise((done) => setTimeout(() => done(devices), 50)));
    await t.test('golden tokens', async () => {
      assert.deepEqual(await page.evaluate(() => ids({ maxTokens: 8 })), GOLDEN.slice(0, 8));
      assert.equal(await page.evaluate(async () => (await engine.info()).caps.subgroup), null);
      assert.deepEqual(await devices(), { made: 1, lost: [] });
    });
    await t.test('every operator against its twin', () => operators(page));
    await t.test('the GPU gets its memory back: from a check, a load that fails, an engine that is closed', async () => {
      assert.deepEqual(await devices(), { made: 2, lost: ['destroyed'] });
      assert.equal(await page.evaluate(() => code(globalThis.load('/nothing/'))), 'files');
      here.server.faults.set('model.safetensors', 'lie');
      assert.equal(await page.evaluate(() => code(globalThis.load('/fables/'))), 'checkpoint');
      assert.deepEqual(await devices(), { made: 4, lost: ['destroyed', 'destroyed', 'destroyed'] });
      assert.deepEqual(await page.evaluate(() => ids({ maxTokens: 2 })), GOLDEN.slice(0, 2));
      await page.evaluate(() => engine.close());
      assert.deepEqual((await devices()).lost.length, 4);
      assert.deepEqual(errors, []);
    });
  }));

for (const where of ['worker', 'page']) {
  test(`golden tokens on the CPU, in the ${where}`, () =>
    fresh(async (page) => {
      const got = await tell(page, { where });
      assert.deepEqual(got.ids, GOLDEN, JSON.stringify(got));
      assert.equal(got.subgroup, null);
      assert.equal(got.end, 'length');
      assert.deepEqual(got.stages, ['device', 'files', 'weights', 'compile', 'ready']);
      assert.match(got.text, /^, and then he went to the King/);
    }));
}

test('files of one\'s own', () =>
  fresh(async (page) => {
    const ids = await page.evaluate(async () => {
      const { load } = await import('/nemoflash/index.js');
      const names = ['config.json', 'tokenizer.json', 'model.safetensors'];
      const files = await Promise.all(names.map(async (name) => new File([await (await fetch(`/fables/${name}`)).blob()], name)));
      const engine = await load({ files }, { device: 'cpu' });
      const answer = engine.generate('Once upon a time', { temperature: 0, maxTokens: 8 });
      for await (const _ of answer);
      const missing = await load({ files: files.slice(1) }).catch(({ code, message }) => `${code}: ${message}`);
      return { ids: (await answer.usage).ids, missing };
    });
    assert.deepEqual(ids.ids, GOLDEN.slice(0, 8));
    assert.match(ids.missing, /^files: config.json is missing/);
  }));

test('broken off, busy, a panic, what cannot be: the engine goes on', () =>
  fresh(async (page) => {
    const got = await page.evaluate(async () => {
      const { load } = await import('/nemoflash/index.js');
      const engine = await load('/fables/', { device: 'cpu', context: 256 });
      const ids = async (options) => {
        const answer = engine.generate('Once upon a time', { temperature: 0, maxTokens: 6, ...options });
        for await (const _ of answer);
        return (await answer.usage).ids;
      };
      const code = (promise) => promise.then(() => 'no error', ({ code }) => code);
      // Breaking out of the loop stops it too.
      const broken = engine.generate('Once upon a time', { temperature: 0, maxTokens: 200 });
      for await (const _ of broken) break;
      const { end } = await broken.usage;
      const afterBreak = await ids();
      const busy = engine.generate('Once', { maxTokens: 4 });
      const second = await code(ids());
      for await (const _ of busy);
      const panic = await code(engine.post({ kind: 'panic' }));
      const afterPanic = await ids();
      const wrong = await code(ids({ temperature: -1 }));
      const long = await code(engine.generate('Once '.repeat(2000)).usage);
      return { end, after: [afterBreak, afterPanic, await ids()], codes: [second, panic, wrong, long] };
    });
    assert.equal(got.end, 'aborted');
    for (const after of got.after) assert.deepEqual(after, GOLDEN.slice(0, 6));
    assert.deepEqual(got.codes, ['busy', 'panic', 'parameter', 'prompt']);
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

test('a plan of what a model takes, before it is loaded', () =>
  fresh(async (page) => {
    const got = await page.evaluate(async () => {
      const { load, plan } = await import('/nemoflash/index.js');
      const config = new Uint8Array(await (await fetch('/fables/config.json')).arrayBuffer());
      const engine = await load('/fables/', { device: 'cpu', context: 100 });
      const { explain } = await engine.info();
      const none = await plan('nobody').catch(({ code }) => code);
      const long = await plan(config, { context: 1 << 20 }).catch(({ code }) => code);
      const shapes = [await plan('nemotron-flash-1b'), await plan('nemotron-flash-1b', { weights: 'q4' })];
      return { fables: await plan(config, { context: 100 }), explain: explain.device_bytes, none, long, shapes };
    });
    const { context, ...bytes } = got.fables;
    assert.equal(context, 100);
    assert.equal(bytes.weights, got.explain.weights);
    assert.equal(bytes.arena, got.explain.arena);
    assert.deepEqual([got.none, got.long], ['parameter', 'parameter']);
    assert.ok(got.shapes[0].weights > 1.9e9 && got.shapes[1].weights < 0.6e9, JSON.stringify(got.shapes));
  }));

test('a turn of a chat reads only what is new', () =>
  fresh(async (page) => {
    const read = await page.evaluate(async () => {
      const { load } = await import('/nemoflash/index.js');
      const engine = await load('/fables/', { device: 'cpu' });
      const messages = [{ role: 'user', content: 'Once upon a time there was a King who had three daughters.' }];
      const turn = async () => {
        const { prefillTokens, ids } = await engine.generate(messages, { temperature: 0, maxTokens: 12, format: 'instruct' }).usage;
        return [prefillTokens, ids.length];
      };
      const first = await turn();
      messages.push({ role: 'assistant', content: ' The King' }, { role: 'user', content: 'And then?' });
      return { first, second: await turn(), again: await turn(), once: await turn() };
    });
    // The first time nothing can be taken over; then what was behind the last turn's beginning; then one token.
    assert.ok(read.again[0] < read.second[0], JSON.stringify(read));
    assert.equal(read.once[0], 1, JSON.stringify(read));
  }));

test('what nobody chooses is what the command takes', () =>
  fresh(async (page) => {
    const got = await page.evaluate(async () => {
      const { load } = await import('/nemoflash/index.js');
      const names = ['config.json', 'tokenizer.json', 'model.safetensors'];
      const files = await Promise.all(names.map(async (name) => new File([await (await fetch(`/fables/${name}`)).blob()], name)));
      const answer = async (engine, prompt, options) => engine.generate(prompt, { maxTokens: 6, ...options }).usage;
      const engine = await load({ files, name: 'Fables-Instruct' }, { device: 'cpu' });
      const { defaults } = await engine.info();
      const random = await answer(engine, 'Once');
      const again = await answer(engine, 'Once', { seed: random.seed, temperature: 0.8, topK: 40, topP: 1, minP: 0, repetitionPenalty: 1 });
      const asked = [{ role: 'user', content: 'Who are you?' }];
      const formats = [undefined, 'instruct', 'text'];
      const conversation = [];
      for (const format of formats) conversation.push((await answer(engine, asked, { temperature: 0, format })).ids);
      const text = (await answer(engine, 'Who are you?', { temperature: 0 })).ids;
      return { defaults, random: random.ids, again: again.ids, conversation, text };
    });
    assert.deepEqual(got.defaults, {
      temperature: 0.8, topK: 40, topP: 1, minP: 0, repetitionPenalty: 1, maxTokens: 200, format: 'instruct',
    });
    assert.deepEqual(got.random, got.again);
    const [open, instruct, text] = got.conversation;
    assert.deepEqual(open, instruct);
    assert.notDeepEqual(open, text);
    assert.deepEqual(got.text, text);
  }));

test('the wasm is small', () => {
  const { gzip } = JSON.parse(readFileSync(`${root}wasm/dist/size.json`));
  assert.ok(gzip <= 2 << 20, `${gzip} bytes`);
});
