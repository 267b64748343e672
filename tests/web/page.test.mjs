// The built page in Chromium, as a person uses it.
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { launch } from './browser.mjs';
import { PAYLOADS } from './payloads.mjs';
import { serve } from './server.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));
const GOLDEN = /^Once upon a time, and then he went to the King and said, "I have a daughter/;

let server, browser;
before(async () => {
  // In a folder of its host, as on GitHub Pages.
  server = await serve({ '/': `${root}tests/web/blank/`, '/nemoflash/': `${root}web-demo/dist/` });
  browser = await launch();
  mkdirSync(`${root}tests/web/shots`, { recursive: true });
});
after(async () => {
  await browser?.close();
  await server?.close();
});

/** A fresh page. No error, no violation of the policy, no request elsewhere: whatever a test does. */
async function visit(run, { query = '', options = {} } = {}) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  const faults = [];
  let dialogs = 0;
  page.on('pageerror', (error) => faults.push(String(error)));
  page.on('console', (message) => message.type() === 'error' && faults.push(message.text()));
  page.on('dialog', (dialog) => (dialogs += 1, dialog.dismiss()));
  context.on('request', (request) => {
    const { origin, protocol } = new URL(request.url());
    if (protocol.startsWith('http') && origin !== new URL(server.url).origin) faults.push(`a request to ${request.url()}`);
  });
  await page.addInitScript(() => {
    globalThis.violations = [];
    document.addEventListener('securitypolicyviolation', (event) => globalThis.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
  });
  try {
    await page.goto(`${server.url}nemoflash/${query}`);
    await run(page, context, faults);
    assert.deepEqual(await page.evaluate(() => globalThis.violations), [], 'violations of the policy');
    assert.deepEqual(faults, [], 'errors');
    assert.equal(dialogs, 0, 'dialogs');
  } finally {
    await context.close();
  }
}

const loaded = (page) => page.locator('#writer:not([hidden])').waitFor({ timeout: 60_000 });
const over = (page) => page.waitForFunction(() => /seed/.test(document.querySelector('#speed').textContent), null, { timeout: 120_000 });
async function load(page, settings = { temperature: 0, 'max-tokens': 24 }) {
  await page.click('#load');
  await loaded(page);
  for (const [id, value] of Object.entries(settings)) {
    await page.evaluate(([id, value]) => (document.getElementById(id).value = value), [id, value]);
  }
}

test('two clicks to a story; stop, regenerate, reset', () =>
  visit(async (page) => {
    await page.click('#load');
    await loaded(page);
    await page.click('#generate');
    await page.waitForFunction(() => document.querySelector('#output').textContent.length > 60);
    await over(page);
    assert.match(await page.textContent('#speed'), /200 tokens at [\d.]+\/s; first after [\d.]+ s/);
    const first = await page.textContent('#output');
    await page.screenshot({ path: `${root}tests/web/shots/story.png`, fullPage: true });
    await page.click('#regenerate');
    await over(page);
    assert.notEqual(await page.textContent('#output'), first);
    await page.evaluate(() => (document.querySelector('#max-tokens').value = 4000));
    await page.click('#generate');
    await page.waitForFunction(() => document.querySelector('#output').textContent.length > 40);
    await page.click('#stop');
    await page.waitForFunction(() => /stopped/.test(document.querySelector('#speed').textContent));
    await page.click('#reset');
    assert.equal(await page.textContent('#output'), '');
  }));

test('the same seed gives the same story, and greedy the golden one', () =>
  visit(async (page) => {
    await load(page);
    await page.click('#generate');
    await over(page);
    assert.match(await page.textContent('#output'), GOLDEN);
    const story = async () => {
      await page.evaluate(() => (document.querySelector('#temperature').value = 0.9, document.querySelector('#seed').value = 7));
      await page.click('#reset');
      await page.click('#generate');
      await over(page);
      return page.textContent('#output');
    };
    assert.equal(await story(), await story());
  }));

test('from storage after a reload, and without a network', () =>
  visit(async (page, context, faults) => {
    await load(page);
    await page.evaluate(() => navigator.serviceWorker.ready);
    await page.waitForFunction(() => navigator.serviceWorker.controller !== null);
    assert.match(await page.textContent('#cached'), /fables: 13\.\d MB/);
    await page.reload();
    server.requests.length = 0;
    await load(page);
    // One look at the weights' version, and no byte of them is read.
    assert.ok(server.requests.filter(({ path }) => path.endsWith('.safetensors')).length <= 1);
    await context.setOffline(true);
    await server.close();
    await page.reload();
    await load(page);
    await page.click('#generate');
    await over(page);
    assert.match(await page.textContent('#output'), GOLDEN);
    // The network's own complaints are expected here.
    const expected = (text) => /ERR_INTERNET_DISCONNECTED|ERR_CONNECTION_REFUSED|Failed to load resource/.test(text);
    faults.splice(0, faults.length, ...faults.filter((text) => !expected(text)));
    server = await serve({ '/': `${root}tests/web/blank/`, '/nemoflash/': `${root}web-demo/dist/` });
  }));

// One page for all that needs a GPU: SwiftShader takes 9 s to compile a model's pipelines.
test('on the GPU: a lost device in mid-answer, the answer goes on; the self-check', { timeout: 600_000 }, () =>
  visit(async (page) => {
    await load(page, { temperature: 0, 'max-tokens': 12 });
    assert.match(await page.textContent('#status'), /swiftshader/);
    await page.click('#generate');
    await page.waitForFunction(() => document.querySelector('#output .answer')?.textContent.length > 4, null, { timeout: 60_000 });
    await page.evaluate(() => globalThis.nemoflashTest.loseDevice());
    await over(page);
    assert.match(await page.textContent('#output'), /^Once upon a time, and then he went to the King/);
    assert.equal(await page.isVisible('#error'), false);
    await page.click('#selfcheck-panel summary');
    await page.click('#selfcheck');
    await page.waitForFunction(() => /operators/.test(document.querySelector('#selfcheck-summary').textContent), null, { timeout: 500_000 });
    assert.match(await page.textContent('#selfcheck-summary'), /^All \d+ operators give the results of their CPU twins/);
    assert.ok((await page.locator('#selfcheck-table td.pass').count()) >= 20);
  }, { query: '?test&device=gpu' }));

test('no text runs: prompts and answers are text', () =>
  visit(async (page) => {
    assert.ok(PAYLOADS.length >= 50);
    await load(page, { temperature: 0, 'max-tokens': 1 });
    await page.evaluate(() => (globalThis.ran = 0));
    for (const payload of PAYLOADS) {
      await page.fill('#prompt', payload);
      await page.click('#generate');
      await over(page);
      const shown = await page.evaluate(() => document.querySelector('#output .you').textContent);
      assert.equal(shown, payload);
    }
    assert.equal(await page.evaluate(() => globalThis.ran), 0);
    assert.equal(await page.locator('#output :not(p)').count(), 0);
    // Negative control: the same texts do run where they are taken for HTML and nothing forbids it.
    const other = await browser.newPage();
    await other.goto(server.url);
    const ran = await other.evaluate(async (payloads) => {
      globalThis.ran = 0;
      for (const payload of payloads) {
        document.body.innerHTML = payload;
        await new Promise((done) => setTimeout(done, 5));
      }
      return globalThis.ran;
    }, PAYLOADS);
    await other.close();
    assert.ok(ran >= 3, `${ran} payloads work at all`);
  }));

test('what the model says is text too', () =>
  visit(async (page, context) => {
    // A model that says markup: its word for " and" is changed, which is no part of a longer one.
    const markup = '<img src=x onerror="ran=1">';
    await context.route('**/fables/tokenizer.json', async (route) => {
      const json = await (await route.fetch()).json();
      const { vocab, merges } = json.model;
      vocab[markup.replaceAll(' ', 'Ġ')] = vocab['Ġand'];
      delete vocab['Ġand'];
      json.model.merges = merges.filter((pair) => pair.join('') !== 'Ġand');
      await route.fulfill({ json });
    });
    await load(page);
    await page.evaluate(() => (globalThis.ran = 0));
    await page.click('#generate');
    await over(page);
    assert.ok((await page.textContent('#output')).includes(`,${markup} then he went to the King`), await page.textContent('#output'));
    assert.equal(await page.evaluate(() => globalThis.ran), 0);
    assert.equal(await page.locator('#output img').count(), 0);
  }));

test('without WebGPU the CPU runs it; a large model is not loaded unasked', () =>
  visit(async (page) => {
    await page.check('input[value=flash-1b]');
    assert.equal(await page.isDisabled('#load'), true);
    assert.match(await page.textContent('#fit'), /CPU/);
    await page.check('#licence');
    assert.equal(await page.isDisabled('#load'), false);
    await page.check('input[value=fables]');
    await load(page);
    assert.match(await page.textContent('#status'), /ready on cpu/);
  }));

test('a download that fails, and trying again', () =>
  visit(async (page, _, faults) => {
    server.faults.set('model.safetensors', 'gone');
    await page.click('#load');
    await page.locator('#error:not([hidden])').waitFor();
    assert.match(await page.textContent('#error-text'), /download failed/);
    server.faults.clear();
    await page.click('#retry');
    await loaded(page);
    faults.splice(0, faults.length, ...faults.filter((text) => !/404/.test(text)));
  }));

test('keyboard alone; nothing blocks the page while text comes', () =>
  visit(async (page) => {
    await page.evaluate(() => {
      globalThis.long = [];
      new PerformanceObserver((list) => globalThis.long.push(...list.getEntries().map((entry) => entry.duration))).observe({ type: 'longtask' });
    });
    await page.keyboard.press('Tab');
    for (let i = 0; i < 12 && (await page.evaluate(() => document.activeElement.id)) !== 'load'; i += 1) await page.keyboard.press('Tab');
    await page.keyboard.press('Enter');
    await loaded(page);
    await page.evaluate(() => (globalThis.long.length = 0));
    await page.locator('#generate:focus').waitFor();
    await page.keyboard.press('Enter');
    await over(page);
    const tasks = await page.evaluate(() => globalThis.long);
    console.log(`tasks of the page over 50 ms while generating: ${tasks.length} ${JSON.stringify(tasks)}`);
    assert.ok((await page.textContent('#output')).length > 60);
    const unnamed = await page.evaluate(() => [...document.querySelectorAll('button, input, textarea')]
      .filter((e) => !(e.textContent.trim() || e.labels?.length || e.getAttribute('aria-label'))).map((e) => e.id));
    assert.deepEqual(unnamed, []);
  }));

test('trying again loads the model that failed, not one that was chosen since', () =>
  visit(async (page, _, faults) => {
    server.faults.set('model.safetensors', 'gone');
    await page.click('#load');
    await page.locator('#error:not([hidden])').waitFor();
    assert.equal(await page.isVisible('#run-on-cpu'), false);
    server.faults.clear();
    await page.check('input[value=flash-3b]');
    // `visit` fails on a request to the hub.
    await page.click('#retry');
    await loaded(page);
    assert.match(await page.textContent('#status'), /^fables is ready/);
    faults.splice(0, faults.length, ...faults.filter((text) => !/404/.test(text)));
  }));

test('any temperature, with the settings folded away', () =>
  visit(async (page) => {
    await load(page, { temperature: 0.85, 'max-tokens': 5 });
    await page.click('#generate');
    await over(page);
  }));

test('another model in the middle of an answer, Enter in the middle of a self-check: no error', () =>
  visit(async (page) => {
    await load(page, { 'max-tokens': 4000 });
    await page.click('#generate');
    await page.waitForFunction(() => document.querySelector('#output').textContent.length > 40);
    await page.click('#choose summary');
    await page.click('#load');
    await page.waitForFunction(() => document.querySelector('#output').textContent === '' && !document.querySelector('#writer').hidden);
    assert.equal(await page.isVisible('#error'), false);
    await page.click('#selfcheck-panel summary');
    await page.click('#selfcheck');
    await page.focus('#prompt');
    await page.keyboard.press('Enter');
    await page.waitForFunction(() => /operators/.test(document.querySelector('#selfcheck-summary').textContent), null, { timeout: 60_000 });
    assert.match(await page.textContent('#selfcheck-summary'), /nothing about a GPU/);
    assert.equal(await page.isVisible('#error'), false);
  }));

test('a folder of one\'s own in 4 bits: a message that does not fit comes back, and the next one is answered', () =>
  visit(async (page) => {
    const files = ['config.json', 'tokenizer.json', 'model.safetensors'].map((name) => `${root}models/fables/${name}`);
    const folder = await mkdtemp(`${tmpdir()}/Instruct-`);
    for (const file of files) await copyFile(file, `${folder}/${file.split('/').pop()}`);
    // Made for few tokens, so that many are soon read.
    const config = { ...JSON.parse(await readFile(files[0])), max_position_embeddings: 512, orig_max_position_embeddings: 256 };
    await writeFile(`${folder}/config.json`, JSON.stringify(config));
    await page.check('input[value=own]');
    await page.setInputFiles('#folder', folder);
    await page.selectOption('#weights', 'q4');
    await load(page, { temperature: 0, 'max-tokens': 5 });
    assert.match(await page.textContent('#device'), /weights [34]\.\d MB/);
    await page.fill('#prompt', 'word '.repeat(9000));
    await page.click('#generate');
    await page.locator('#error:not([hidden])').waitFor({ timeout: 120_000 });
    assert.equal((await page.inputValue('#prompt')).length, 45_000);
    await page.fill('#prompt', 'Who lives there?');
    await page.click('#generate');
    await over(page);
    assert.equal(await page.locator('#output .you').count(), 1);
    await rm(folder, { recursive: true });
  }));

test('what the person should know stays on the page', () =>
  visit(async (page) => {
    await page.route('**/assets/worker-*.js', async (route) => {
      const response = await route.fetch();
      await route.fulfill({ response, body: `navigator.storage.getDirectory = () => Promise.reject(new Error('no'));${await response.text()}` });
    });
    await load(page);
    assert.match(await page.textContent('#notice'), /not kept/);
  }, { options: { serviceWorkers: 'block' } }));

for (const [name, viewport, colorScheme] of [
  ['desktop-light', { width: 1280, height: 900 }, 'light'],
  ['desktop-dark', { width: 1280, height: 900 }, 'dark'],
  ['phone-light', { width: 360, height: 740 }, 'light'],
  ['phone-dark', { width: 360, height: 740 }, 'dark'],
]) {
  test(`layout: ${name}`, () =>
    visit(async (page) => {
      await load(page, { temperature: 0, 'max-tokens': 120 });
      await page.click('#generate');
      await over(page);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
      assert.equal(wide, false, 'it scrolls sideways');
      await page.screenshot({ path: `${root}tests/web/shots/${name}.png`, fullPage: true });
    }, { options: { viewport, colorScheme, reducedMotion: 'reduce' } }));
}
