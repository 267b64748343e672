// The benchmark in a browser: it obeys the schema that the native one obeys, it stops, and the page shows and exports it.
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { executable } from './browser.mjs';
import { GOLDEN, root, site } from './harness.mjs';

const { fresh } = site({ '/demo/': `${root}web-demo/dist/` });
const check = new Ajv2020({ strict: false, validateFormats: false }).compile(JSON.parse(readFileSync(`${root}benches/report.schema.json`, 'utf8')));
const faults = (report) => (check(report) ? [] : check.errors.map(({ instancePath, message }) => `${instancePath} ${message}`));

/** In the page: an engine's benchmark, with what was heard on the way. */
const bench = (page, load, options) =>
  page.evaluate(async ([load, options]) => {
    const { load: open } = await import('/nemoflash/index.js');
    const engine = await open('/fables/', load);
    const [progress, rows] = [[], []];
    const report = await engine.bench({ ...options, onProgress: (at) => progress.push(at), onRow: (row) => rows.push(row) });
    const { ids } = await engine.generate('Once upon a time', { temperature: 0, maxTokens: 3 }).usage;
    const { device, caps } = await engine.info();
    await engine.close();
    return { report, progress, rows, ids, device, timestamps: caps.timestamps };
  }, [load, options]);

const names = ({ rows }) => rows.map(({ test }) => test.name);
const valid = ({ report, rows }) => {
  assert.deepEqual(faults(report), []);
  assert.deepEqual(rows, report.rows);
  for (const { gate, said, error, software, date } of report.rows) {
    assert.equal(gate, 'passed');
    assert.deepEqual(said, GOLDEN);
    assert.equal(error, null);
    assert.equal(software.runtime, 'browser');
    assert.match(software.host, /^(Chromium|Google Chrome|HeadlessChrome) \d+/);
    assert.ok(Math.abs(Date.parse(date) - Date.now()) < 3600e3, date);
  }
};

test('on the CPU: rows of the schema; the engine answers afterwards', () =>
  fresh(async (page) => {
    const got = await bench(page, { device: 'cpu' }, { prompt: 16, tokens: 8, depth: [0, 32], runs: 2 });
    valid(got);
    assert.deepEqual(names(got.report), ['load', 'first token', 'pp16', 'tg8', 'pp16 @ d32', 'tg8 @ d32']);
    for (const { test, time, device, model } of got.report.rows) {
      assert.equal(time.samples.length, test.kind === 'load' ? 1 : 2, test.name);
      assert.equal(time.tokens_per_second === null, ['load', 'first token'].includes(test.name), test.name);
      assert.equal(time.bytes_per_second === null, test.kind !== 'decode', test.name);
      assert.deepEqual([device.adapter, device.backend, device.kind], ['cpu', 'cpu', 'cpu']);
      assert.equal(model.name, 'fables');
    }
    // Each run is told once, the first of which does not count.
    const runs = got.progress.filter(({ test }) => test === 'tg8').map(({ run }) => run);
    assert.deepEqual(runs, [0, 1, 2]);
    assert.deepEqual(got.ids, [15, 273, 541]);
    // Negative control: what is wrong is seen.
    for (const spoil of [
      (report) => (report.schema = 'nemoflash-bench/2'),
      (report) => delete report.rows[0].gate,
      (report) => (report.rows[0].said[3] = 'four'),
      (report) => (report.rows[1].software.runtime = 'a browser'),
      (report) => (report.rows[2].time.samples = []),
      (report) => (report.rows[3].test.name = 'decode'),
      (report) => (report.rows[4].more = 1),
    ]) {
      const other = structuredClone(got.report);
      spoil(other);
      assert.notDeepEqual(faults(other), [], String(spoil));
    }
  }));

test('lists, pairs and sequences at a time: the tests of the command', () =>
  fresh(async (page) => {
    const options = { prompt: [4, 8], tokens: [2], both: [[5, 3]], depth: [0, 9], batch: [1, 2], skip: ['load', 'first_token'], runs: 1 };
    const { report } = await bench(page, { device: 'cpu', slots: 2, context: 64 }, options);
    assert.deepEqual(faults(report), []);
    const each = ['', ' b2', ' @ d9', ' @ d9 b2'].flatMap((at) => ['pp4', 'pp8', 'tg2', 'pp5+tg3'].map((test) => test + at));
    assert.deepEqual(names(report), each);
    assert.ok(report.rows.every(({ error, gate }) => error === null && gate === 'passed'));
    // Negative control: more at a time than there are slots; and nothing is asked of the model.
    const { report: one } = await bench(page, { device: 'cpu' }, { ...options, prompt: 0, both: [], depth: 0, skip: ['gate'] });
    assert.deepEqual(one.rows.map(({ test, error }) => [test.name, error !== null]), [['load', false], ['tg2', false], ['tg2 b2', true]]);
    assert.ok(one.rows.every(({ gate, said }) => gate === 'not_run' && said === undefined));
  }));

test('what cannot be measured is a row that says why; what cannot be asked for, an error', () =>
  fresh(async (page) => {
    const { report } = await bench(page, { device: 'cpu', where: 'page', context: 64 }, { prompt: 100, tokens: 2, runs: 1 });
    assert.deepEqual(faults(report), []);
    assert.deepEqual(report.rows.map(({ error }) => error !== null), [false, true, true, false]);
    assert.match(report.rows[2].error, /do not fit/);
    const codes = await page.evaluate(async () => {
      const { load } = await import('/nemoflash/index.js');
      const engine = await load('/fables/', { device: 'cpu' });
      const code = (options) => engine.bench(options).then(() => 'no error', ({ code }) => code);
      return [await code({ runs: 0 }), await code({ prompt: 1.5 }), await code({ tokens: -1 })];
    });
    assert.deepEqual(codes, ['parameter', 'parameter', 'parameter']);
  }));

test('tokens that are wrong mark every row; other models have none', () =>
  fresh(async (page) => {
    const gates = await page.evaluate(async () => {
      const { load } = await import('/nemoflash/index.js');
      const names = ['config.json', 'tokenizer.json', 'model.safetensors'];
      const parts = await Promise.all(names.map(async (name) => new Uint8Array(await (await fetch(`/fables/${name}`)).arrayBuffer())));
      const weights = parts[2];
      // Numbers behind the header, and none of them becomes infinite.
      const begin = 8 + Number(new DataView(weights.buffer).getBigUint64(0, true));
      const other = weights.slice();
      for (let at = begin; at < other.length; at += 2) other[at] ^= 0x80;
      const out = {};
      for (const [name, bytes] of [['fables', weights], ['fables', other], ['mine', weights]]) {
        const files = [...parts.slice(0, 2), bytes].map((part, i) => new File([part], names[i]));
        const engine = await load({ files, name }, { device: 'cpu', where: 'page' });
        const { rows } = await engine.bench({ prompt: 0, tokens: 1, runs: 1 });
        await engine.close();
        out[`${name} ${bytes === other}`] = rows.map(({ gate, warnings }) => `${gate} ${warnings.some((text) => /golden/.test(text))}`);
      }
      return out;
    });
    const both = (text) => [text, text];
    assert.deepEqual(gates, { 'fables false': both('passed false'), 'fables true': both('failed true'), 'mine false': both('not_run false') });
  }));

for (const where of ['worker', 'page']) {
  test(`stopped, in the ${where}: an error with its code, the rows so far, and an engine that goes on`, () =>
    fresh(async (page) => {
      const got = await page.evaluate(async (where) => {
        const { load } = await import('/nemoflash/index.js');
        const engine = await load('/fables/', { device: 'cpu', where });
        const stop = new AbortController();
        const rows = [];
        const onProgress = ({ test }) => test === 'tg2000' && stop.abort();
        const options = { prompt: 4, tokens: 2000, runs: 50, signal: stop.signal, onProgress, onRow: ({ test }) => rows.push(test.name) };
        const code = await engine.bench(options).then(() => 'no error', ({ code }) => code);
        const late = await engine.bench({ signal: stop.signal }).then(() => 'no error', ({ code }) => code);
        return { code, late, rows, ids: (await engine.generate('Once upon a time', { temperature: 0, maxTokens: 2 }).usage).ids };
      }, where);
      assert.deepEqual(got, { code: 'aborted', late: 'aborted', rows: ['load', 'first token', 'pp4'], ids: [15, 273] });
    }));
}

test('on the GPU: the same rows', { timeout: 300_000 }, () =>
  fresh(async (page) => {
    const got = await bench(page, { device: 'gpu', deny: ['subgroups'] }, { prompt: 8, tokens: 4, runs: 2 });
    valid(got);
    assert.deepEqual(names(got.report), ['load', 'compile', 'first token', 'pp8', 'tg4']);
    const [{ device }, compile, ...rows] = got.report.rows;
    const { time, model } = rows.at(-1);
    // Fresh devices, the first of which does not count.
    assert.deepEqual([compile.time.samples.length, compile.time.samples.every((seconds) => seconds > 0)], [2, true]);
    assert.deepEqual(got.progress.filter(({ test }) => test === 'compile').map(({ run }) => run), [0, 1, 2]);
    // Operators, or why there are none.
    for (const { test, operators, warnings } of rows) {
      const told = operators.length > 0;
      assert.equal(warnings.some((text) => /the times of single operators are not told/.test(text)), !told, test.name);
      assert.equal(got.timestamps || !told, true);
      if (told && test.kind === 'decode') {
        assert.equal(operators.reduce((sum, { dispatches }) => sum + dispatches, 0), model.dispatches_per_token);
      }
    }
    assert.equal(time.busy_share, null);
    assert.equal(device.adapter, got.device);
    assert.deepEqual([device.backend, device.kind, device.subgroup, device.denied], ['webgpu', 'cpu', null, ['subgroups']]);
    assert.ok(time.bandwidth_share > 0, JSON.stringify(time));
  }));

/** The built page with a model, and its panel open. */
async function panel(page, query) {
  const errors = [];
  page.on('pageerror', (error) => errors.push(String(error)));
  page.on('console', (message) => message.type() === 'error' && errors.push(message.text()));
  await page.goto(new URL(`/demo/?bench=${query}`, page.url()).href);
  assert.equal(await page.isDisabled('#bench'), true);
  await page.click('#load');
  await page.locator('#writer:not([hidden])').waitFor({ timeout: 60_000 });
  await page.click('#bench-panel summary');
  return errors;
}
const says = (page, words) => page.waitForFunction((words) => new RegExp(words).test(document.querySelector('#bench-summary').textContent), words, { timeout: 60_000 });
const tests = (page) => page.locator('#bench-table tbody td:first-child').allTextContents();

test('the panel: runs by keyboard, shows, exports and copies; a phone has room for it', () =>
  fresh(async (page, context) => {
    await page.setViewportSize({ width: 360, height: 740 });
    const errors = await panel(page, 'pp16,tg8,r2');
    await page.focus('#bench');
    await page.keyboard.press('Enter');
    await says(page, 'golden tokens are right');
    assert.deepEqual(await tests(page), ['load', 'first token', 'pp16', 'tg8']);
    assert.match(await page.locator('#bench-table tbody tr:last-child').textContent(), /^tg8[\d.]+ tokens\/s[\d.]+ to [\d.]+$/);
    assert.equal(await page.evaluate(() => document.activeElement.id), 'bench');
    assert.deepEqual([await page.isDisabled('#generate'), await page.isDisabled('#bench-stop')], [false, true]);
    const [download] = await Promise.all([page.waitForEvent('download'), page.click('#bench-save')]);
    assert.match(download.suggestedFilename(), /^nemoflash-bench-\d{4}-\d\d-\d\d\.json$/);
    const saved = JSON.parse(await readFile(await download.path(), 'utf8'));
    assert.deepEqual(faults(saved), []);
    assert.deepEqual(names(saved), await tests(page));
    await context.grantPermissions(['clipboard-read', 'clipboard-write']);
    await page.click('#bench-copy');
    await page.waitForFunction(() => /clipboard/.test(document.querySelector('#status').textContent));
    assert.deepEqual(JSON.parse(await page.evaluate(() => navigator.clipboard.readText())), saved);
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth > innerWidth), false, 'it scrolls sideways');
    await page.screenshot({ path: `${root}tests/web/shots/bench.png`, fullPage: true });
    assert.deepEqual(errors, []);
  }));

test('the panel: stopped, it keeps what it has; another model clears it', () =>
  fresh(async (page) => {
    const errors = await panel(page, 'pp4,tg3000,r9');
    await page.click('#bench');
    await says(page, 'tg3000');
    assert.equal(await page.isDisabled('#generate'), true);
    await page.click('#bench-stop');
    await says(page, 'Stopped');
    assert.deepEqual(await tests(page), ['load', 'first token', 'pp4']);
    assert.deepEqual([await page.isDisabled('#generate'), await page.isDisabled('#bench-save')], [false, false]);
    // In the middle of another run.
    await page.click('#bench');
    await says(page, 'tg3000');
    await page.click('#choose summary');
    await page.click('#load');
    await page.waitForFunction(() => !document.querySelector('#writer').hidden && !document.querySelector('#bench').disabled);
    assert.deepEqual(await tests(page), []);
    assert.deepEqual([await page.isVisible('#error'), await page.isDisabled('#bench-save')], [false, true]);
    assert.deepEqual(errors, []);
  }));

/** The command with a browser that runs where everybody is root; it is ended with what started it. */
const command = () => {
  const folder = mkdtempSync(join(tmpdir(), 'nemoflash-'));
  const browser = join(folder, 'browser');
  writeFileSync(browser, `#!/bin/sh\n'${executable()}' --no-sandbox --use-webgpu-adapter=swiftshader "$@"\n`);
  chmodSync(browser, 0o755);
  const program = `${process.env.CARGO_TARGET_DIR ?? `${root}target`}/debug/nemoflash`;
  const rows = (text) => text.trim().split('\n').filter(Boolean).map((line) => JSON.parse(line));
  const run = (...options) =>
    new Promise((done) => {
      execFile(program, ['bench', '-ojsonl', ...options], { cwd: root, maxBuffer: 64 << 20 }, (error, stdout, stderr) =>
        done({ code: error?.code ?? 0, stderr, rows: rows(stdout) }));
    });
  return { folder, browser, program, rows, run };
};
const commands = { timeout: 300_000, skip: process.platform === 'win32' };

test('the command starts a browser, which sends its rows', commands, async () => {
  const { folder, browser, run: start } = command();
  const run = (...more) => start('--skip', 'load,first-token', '-p8', '-n4', '-r2', '--device=cpu', ...more);
  try {
    // A name with everything in it, and no end that the page would take for a model of its own.
    const model = join(folder, "a model's 100%?");
    mkdirSync(model);
    for (const name of ['config.json', 'tokenizer.json', 'model.safetensors']) symlinkSync(`${root}models/fables/${name}`, join(model, name));
    const lists = ['-p8,5', '--pg', '6,2', '-d0,3', '-b1,2', '--kv=f32', '--scan=chunked', '--skip', 'load,first-token'];
    const [own, other] = [
      await start(`--browser=${browser}`, '-n4', '-r1', '--device=cpu', ...lists),
      await run(`--browser=${browser}`, '--model', model, '--weights', 'q8', '--skip', 'gate'),
    ];
    const each = ['', ' b2', ' @ d3', ' @ d3 b2'].flatMap((at) => ['pp8', 'pp5', 'tg4', 'pp6+tg2'].map((test) => test + at));
    for (const [{ code, stderr, rows }, tests, ...about] of [
      [own, each, 'fables', 'passed', 'bf16', 'f32', 'chunked', GOLDEN.join()],
      [other, ['pp8', 'tg4'], "a model's 100%?", 'not_run', 'q8', 'f16', 'serial', undefined],
    ]) {
      assert.equal(code, 0, stderr);
      assert.deepEqual(faults({ schema: 'nemoflash-bench/1', rows }), []);
      const said = rows.map(({ software, test }) => `${software.runtime} ${test.name}`);
      assert.deepEqual(said, ['native', 'browser'].flatMap((where) => tests.map((test) => `${where} ${test}`)));
      for (const { model, gate, said, error } of rows) assert.deepEqual([model.name, gate, model.weights, model.kv, model.prefill_scan, said?.join(), error], [...about, null]);
    }
    // Negative controls: no page or no browser is known before anything is measured; one that ends owes its rows.
    for (const [more, words] of [[['--browser', '--page', folder], /holds no built web demo/], [[`--browser=${folder}/none`], /cannot start/]]) {
      const { code, stderr, rows } = await run(...more);
      assert.deepEqual([code, rows.length], [1, 0], stderr);
      assert.match(stderr, words);
    }
    const { code, stderr, rows } = await run('--browser=false');
    assert.deepEqual([code, names({ rows }), faults({ schema: 'nemoflash-bench/1', rows })], [1, ['pp8', 'tg4', 'pp8', 'tg4'], []], stderr);
    for (const { software, error } of rows.slice(2)) {
      assert.equal(software.runtime, 'browser');
      assert.match(error, /the browser ended by exit status: 1 .* Try `nemoflash bench --browser=PATH`/);
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('one command: every backend and the browser in one page that says whether they say the same', commands, async () => {
  const { folder, browser, run } = command();
  try {
    const page = join(folder, 'report.html');
    const few = ['-p8', '-n4', '-r1', '--profile=1', '--skip', 'load,compile,first-token'];
    const { code, stderr, rows } = await run('--all-backends', `--browser=${browser}`, '--html', page, ...few);
    assert.equal(code, 0, stderr);
    const places = new Set(rows.map(({ software, device }) => `${software.runtime} ${device.backend}`));
    for (const place of ['native cpu', 'browser webgpu', 'browser cpu']) assert.ok(places.has(place), [...places].join());
    assert.ok(rows.every(({ gate, said }) => gate === 'passed' && String(said) === String(GOLDEN)));
    const html = readFileSync(page, 'utf8');
    assert.match(html, /<li>All \d devices say the same 32 tokens\.<\/li>/);
    assert.equal(html.match(/<td>right<\/td><td>(32 tokens|the same 32 as A)<\/td>/g).length, new Set(rows.map(({ software, device }) => JSON.stringify([software, device]))).size);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('Ctrl-C while the browser measures: rows so far are kept, and no browser is left', { ...commands, skip: !existsSync('/proc/self/cmdline') }, async () => {
  const { folder, browser, program, rows } = command();
  /** Processes of browsers that measure this test's tokens. */
  const left = (tokens) =>
    readdirSync('/proc').filter((name) => {
      try {
        return /^\d+$/.test(name) && readFileSync(`/proc/${name}/cmdline`, 'utf8').includes(`tg${tokens},`);
      } catch {
        return false; // it is gone
      }
    }).length;
  try {
    const tokens = 600 + (process.pid % 400);
    // The command itself has its tokens after another word.
    const child = spawn(program, ['bench', '-ojsonl', '--skip', 'gate,load,first-token', '-p8', '-n', `4,${tokens}`, '-r1', '--device=cpu', `--browser=${browser}`],
      { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] });
    let [out, err] = ['', ''];
    child.stderr.on('data', (data) => (err += data));
    await new Promise((seen) => child.stdout.on('data', (data) => /browser.*"tg4"/.test((out += data)) && seen()));
    assert.ok(left(tokens) > 0);
    child.kill('SIGINT');
    const code = await new Promise((ended) => child.on('close', ended));
    assert.deepEqual([code, err], [130, '']);
    const said = rows(out).map(({ software, test }) => `${software.runtime} ${test.name}`);
    assert.deepEqual(said, ['native pp8', 'native tg4', `native tg${tokens}`, 'browser pp8', 'browser tg4']);
    assert.equal(left(tokens), 0);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
