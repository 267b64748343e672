// The package in Chromium: the same answers as everywhere, and what happens when things go wrong.
import assert from 'node:assert/strict';
import { readFileSync, statSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { launch, open } from './browser.mjs';
import { serve } from './server.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));
const WEIGHTS = 'model.safetensors';
const PIECE = 8 << 20;
// "Once upon a time" and what the float64 reference says next (tests/golden/fables.safetensors).
const GOLDEN = [
  15, 273, 541, 282, 525, 279, 263, 659, 273, 352, 15, 360, 44, 397, 262, 1030, 421, 379, 262, 659, 364, 1030, 15, 273,
  311, 569, 659, 384, 360, 845, 15, 2013,
];
const { size: bytes } = statSync(`${root}models/fables/${WEIGHTS}`);

let server, browser;
before(async () => {
  server = await serve({ '/': `${root}tests/web/blank/`, '/nemoflash/': `${root}wasm/dist/`,
    '/fables/': `${root}models/fables/`,
    '/models/': `${root}models/` });
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await server?.close();
});

/** A fresh origin's page. */
async function fresh(run) {
  const context = await browser.newContext();
  server.faults.clear();
  server.requests.length = 0;
  try {
    const { page } = await open(context, server.url);
    return await run(page, context);
  } finally {
    server.faults.clear();
    await context.close();
  }
}

/** Loads fables and continues "Once upon a time"; errors come back as data. */
const tell = (page, options = {}, tokens = GOLDEN.length) =>
  page.evaluate(
    async ({ options, tokens }) => {
      const { load } = await import('/nemoflash/index.js');
      const notices = [];
      const stages = [];
      const onProgress = ({ notice, stage }) => (notice && notices.push(notice), stages.at(-1) !== stage && stages.push(stage));
      try {
        const engine = await load('/fables/', { device: 'cpu', ...options, onProgress });
        const answer = engine.generate('Once upon a time', { maxTokens: tokens });
        let text = '';
        for await (const chunk of answer) text += chunk.text;
        const { ids, end } = await answer.usage;
        const info = await engine.info();
        await engine.close();
        return { ids, end, text, notices, stages, cached: info.cached, subgroup: info.caps.subgroup, device: info.device };
      } catch ({ code, message }) {
        return { code, message, notices };
      }
    },
    { options, tokens },
  );
/** Where each request for weights begins. */
const ranges = () =>
  server.requests.filter(({ path }) => path.endsWith(WEIGHTS)).map(({ range }) => Number(/^bytes=(\d+)-/.exec(range)?.[1]));

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

test('the second load comes from storage', () =>
  fresh(async (page) => {
    assert.equal((await tell(page)).cached, true);
    const list = await page.evaluate(async () => (await import('/nemoflash/index.js')).cachedModels());
    assert.equal(list.length, 1);
    assert.equal(list[0].complete, true);
    assert.ok(list[0].bytes > bytes);
    server.requests.length = 0;
    server.faults.set(WEIGHTS, 'gone');
    // Even the file's own server may be gone: its length is known.
    const got = await page.evaluate(async () => {
      const { load } = await import('/nemoflash/index.js');
      let last;
      await load('/fables/', { device: 'cpu', onProgress: (progress) => (last = progress) });
      return last;
    });
    assert.equal(got.fetched, 0);
    assert.equal(got.cached, bytes);
    await page.evaluate(async (key) => (await import('/nemoflash/index.js')).removeModel(key), list[0].key);
    assert.deepEqual(await page.evaluate(async () => (await import('/nemoflash/index.js')).cachedModels()), []);
  }));

/** Changes what is stored of the weights: `change` is the body of a function of a file handle. */
const storage = (page, change) =>
  page.evaluate(async (change) => {
    const models = await (await navigator.storage.getDirectory()).getDirectoryHandle('nemoflash');
    for await (const [, folder] of models.entries()) {
      const handle = await folder.getFileHandle('model.safetensors');
      await new Function('handle', `return (async () => { ${change} })()`)(handle);
    }
  }, change);

test('a wrong byte in storage is found, and its piece alone is fetched again', () =>
  fresh(async (page) => {
    await tell(page, {}, 1);
    await storage(page, `const writer = await handle.createWritable({ keepExistingData: true });
      await writer.write({ type: 'write', position: ${PIECE + 1000}, data: new Uint8Array([1, 2, 3]) }); await writer.close();`);
    server.requests.length = 0;
    const got = await tell(page);
    assert.deepEqual(got.ids, GOLDEN);
    // One look at what the server has, then the second piece.
    assert.deepEqual(ranges(), [0, PIECE]);
  }));

test('a truncated file in storage is found', () =>
  fresh(async (page) => {
    await tell(page, {}, 1);
    await storage(page, `const writer = await handle.createWritable({ keepExistingData: true });
      await writer.truncate(${PIECE + 5}); await writer.close();`);
    server.requests.length = 0;
    assert.deepEqual((await tell(page)).ids, GOLDEN);
    // One look at what the server has, then the second piece.
    assert.deepEqual(ranges(), [0, PIECE]);
  }));

test('what came before the tab was closed is not fetched again', () =>
  fresh(async (page) => {
    const code = await page.evaluate(async () => {
      const { load } = await import('/nemoflash/index.js');
      const stop = new AbortController();
      const onProgress = ({ done }) => done > 8 << 20 && stop.abort();
      return load('/fables/', { device: 'cpu', signal: stop.signal, onProgress }).then(() => 'loaded', ({ code }) => code);
    });
    // On a fast machine everything may have come before the signal.
    assert.ok(['aborted', 'loaded'].includes(code), code);
    await page.reload();
    server.requests.length = 0;
    assert.deepEqual((await tell(page)).ids, GOLDEN);
    assert.ok([[0], [0, PIECE]].some((wanted) => String(wanted) === String(ranges())), String(ranges()));
  }));

for (const [fault, wanted] of [
  ['drop', null],
  ['no-range', null],
  ['lie', 'checkpoint'],
  ['html', 'download'],
  ['gone', 'download'],
  ['altered', null],
]) {
  test(`a server that answers like this: ${fault}`, () =>
    fresh(async (page) => {
      server.faults.set(WEIGHTS, fault);
      const got = await tell(page);
      if (fault === 'altered') {
        // Nothing promises what the file should be; but nothing worse than another text may happen.
        assert.ok(got.ids?.length > 0 || got.code, JSON.stringify(got));
      } else if (wanted) {
        assert.equal(got.code, wanted, JSON.stringify(got));
        assert.ok(got.message.length > 20);
      } else {
        assert.deepEqual(got.ids, GOLDEN, JSON.stringify(got));
      }
    }));
}

test('without room in storage it runs from memory, and says so', () =>
  fresh(async (page, context) => {
    const cdp = await context.newCDPSession(page);
    await cdp.send('Storage.overrideQuotaForOrigin', { origin: new URL(server.url).origin, quotaSize: 4 << 20 });
    const got = await tell(page);
    assert.deepEqual(got.ids, GOLDEN, JSON.stringify(got));
    assert.equal(got.cached, false);
    assert.match(got.notices.join(), /not kept/);
  }));

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
    await page.goto(`${server.url}readme.html`);
    await page.waitForFunction(() => document.querySelector('#story').textContent.length > 60);
  }));

test('the wasm is small', () => {
  const { gzip } = JSON.parse(readFileSync(`${root}wasm/dist/size.json`));
  assert.ok(gzip <= 2 << 20, `${gzip} bytes`);
});
