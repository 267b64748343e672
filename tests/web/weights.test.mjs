// How weights come to a page: over a bad network, from storage, from the hub. All of it on the CPU, in Chromium.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { GOLDEN, PIECE, WEIGHTS, bytes, root, site, tell } from './harness.mjs';

// The hub as far as it is needed: a listing, and files at a commit.
const COMMIT = '0123456789abcdef0123456789abcdef01234567';
const hub = mkdtempSync(join(tmpdir(), 'nemoflash-'));
const siblings = readdirSync(`${root}models/fables`).map((rfilename) => {
  const file = `${root}models/fables/${rfilename}`;
  const { size } = statSync(file);
  const sha256 = createHash('sha256').update(readFileSync(file)).digest('hex');
  return { rfilename, size, ...(rfilename === WEIGHTS && { lfs: { sha256, size } }) };
});
mkdirSync(`${hub}/api/models/owner/fables/revision`, { recursive: true });
writeFileSync(`${hub}/api/models/owner/fables/revision/main`, JSON.stringify({ sha: COMMIT, siblings }));
mkdirSync(`${hub}/owner/fables/resolve`, { recursive: true });
symlinkSync(`${root}models/fables`, `${hub}/owner/fables/resolve/${COMMIT}`);
after(() => rmSync(hub, { recursive: true }));

const here = site({ '/hub/': `${hub}/` });
const { fresh, ranges } = here;
const fault = (words) => here.server.faults.set(WEIGHTS, words);
const forget = () => (here.server.faults.clear(), (here.server.requests.length = 0));
const cachedModels = (page) => page.evaluate(async () => (await import('/nemoflash/index.js')).cachedModels());
/** Until the first piece is in the storage's journal. */
const firstPiece = (page) =>
  page.evaluate(async () => {
    const pieces = async () => {
      const models = await (await navigator.storage.getDirectory()).getDirectoryHandle('nemoflash');
      for await (const [, folder] of models.entries()) {
        const journal = await (await folder.getFileHandle('model.safetensors.pieces')).getFile();
        return JSON.parse(await journal.text()).pieces.length;
      }
    };
    while ((await pieces().catch(() => 0)) !== 1) await new Promise((done) => setTimeout(done, 20));
  });
/** Begins to load and does not wait for the end. */
const begin = (page) =>
  page.evaluate(() => void import('/nemoflash/index.js').then(({ load }) => load('/fables/', { device: 'cpu' })).catch(() => {}));

test('the second load comes from storage', () =>
  fresh(async (page) => {
    assert.equal((await tell(page)).cached, true);
    const list = await cachedModels(page);
    assert.equal(list.length, 1);
    assert.equal(list[0].complete, true);
    assert.ok(list[0].bytes > bytes);
    // Even the file's own server may be gone: its length is known.
    fault('gone');
    const got = await page.evaluate(async () => {
      const { load } = await import('/nemoflash/index.js');
      let last;
      await load('/fables/', { device: 'cpu', onProgress: (progress) => (last = progress) });
      return last;
    });
    assert.equal(got.fetched, 0);
    assert.equal(got.cached, bytes);
    await page.evaluate(async (key) => (await import('/nemoflash/index.js')).removeModel(key), list[0].key);
    assert.deepEqual(await cachedModels(page), []);
  }));

for (const [what, change] of [
  ['a wrong byte', `write({ type: 'write', position: ${PIECE + 1000}, data: new Uint8Array([1, 2, 3]) })`],
  ['a cut', `truncate(${PIECE + 5})`],
]) {
  test(`${what} in storage is found, and its piece alone is fetched again`, () =>
    fresh(async (page) => {
      await tell(page, { tokens: 1 });
      await page.evaluate(async (change) => {
        const models = await (await navigator.storage.getDirectory()).getDirectoryHandle('nemoflash');
        for await (const [, folder] of models.entries()) {
          const writer = await (await folder.getFileHandle('model.safetensors')).createWritable({ keepExistingData: true });
          await new Function('writer', `return writer.${change}`)(writer);
          await writer.close();
        }
      }, change);
      forget();
      assert.deepEqual((await tell(page)).ids, GOLDEN);
      // One look at what the server has, then the second piece.
      assert.deepEqual(ranges(), [0, PIECE]);
    }));
}

test('what came before the tab was closed is not fetched again', () =>
  fresh(async (page, context) => {
    fault('hold');
    await begin(page);
    await firstPiece(page);
    await page.close();
    forget();
    const next = await context.newPage();
    await next.goto(here.server.url);
    const got = await tell(next);
    assert.deepEqual(got.ids, GOLDEN, JSON.stringify(got));
    assert.deepEqual(got.notices, []);
    assert.deepEqual(ranges(), [0, PIECE]);
  }));

test('while another tab loads it, a tab does without storage, and says so', () =>
  fresh(async (page, context) => {
    fault('hold');
    await begin(page);
    await firstPiece(page);
    forget();
    const other = await context.newPage();
    await other.goto(here.server.url);
    const got = await tell(other);
    assert.deepEqual(got.ids, GOLDEN, JSON.stringify(got));
    assert.equal(got.cached, false);
    assert.match(got.notices.join(), /not kept .* another tab/);
  }));

test('without room in storage it runs from memory, and says so', () =>
  fresh(async (page, context) => {
    const cdp = await context.newCDPSession(page);
    await cdp.send('Storage.overrideQuotaForOrigin', { origin: new URL(here.server.url).origin, quotaSize: 4 << 20 });
    const got = await tell(page);
    assert.deepEqual(got.ids, GOLDEN, JSON.stringify(got));
    assert.equal(got.cached, false);
    assert.match(got.notices.join(), /not kept/);
  }));

for (const [words, wanted] of [
  ['drop', null],
  ['no-range', null],
  ['lie', 'checkpoint'],
  ['html', 'download'],
  ['gone', 'download'],
]) {
  test(`a server that answers like this: ${words}`, () =>
    fresh(async (page) => {
      fault(words);
      const got = await tell(page);
      if (wanted) {
        assert.equal(got.code, wanted, JSON.stringify(got));
        assert.ok(got.message.length > 20);
      } else {
        assert.deepEqual(got.ids, GOLDEN, JSON.stringify(got));
      }
    }));
}

test('a file that changes on the server is never half of one and half of another', () =>
  fresh(async (page) => {
    fault('drop etag');
    const got = await tell(page);
    assert.equal(got.code, 'download');
    assert.match(got.message, /changed on the server in the middle/);
    forget();
    assert.deepEqual((await tell(page)).ids, GOLDEN);
    // Nothing that is kept is taken for the new version.
    fault('etag');
    here.server.requests.length = 0;
    assert.deepEqual((await tell(page)).ids, GOLDEN);
    assert.deepEqual(ranges(), [0]);
  }));

test('the hub: files at the commit of its listing, each byte as promised', () =>
  fresh(async (page) => {
    const source = { hub: 'owner/fables', endpoint: `${here.server.url}hub/` };
    const got = await tell(page, { source });
    assert.deepEqual(got.ids, GOLDEN, JSON.stringify(got));
    assert.equal(got.model, 'fables');
    const paths = here.server.requests.map(({ path }) => path).filter((path) => path.startsWith('/hub/'));
    assert.equal(paths.shift(), '/hub/api/models/owner/fables/revision/main');
    assert.ok(paths.length >= 3);
    for (const path of paths) assert.ok(path.startsWith(`/hub/owner/fables/resolve/${COMMIT}/`), path);
    const missing = await tell(page, { source: { ...source, hub: 'owner/nothing' } });
    assert.match(`${missing.code}: ${missing.message}`, /^files: owner\/nothing \(main\) is not on the hub/);
  }));

test('the hub: a file that is not what it promises is refused, and nothing of it kept', () =>
  fresh(async (page) => {
    const source = { hub: 'owner/fables', endpoint: `${here.server.url}hub` };
    fault('altered');
    const got = await tell(page, { source });
    assert.equal(got.code, 'download', JSON.stringify(got));
    assert.match(got.message, /checksum/);
    assert.equal((await cachedModels(page))[0].complete, false);
    forget();
    assert.deepEqual((await tell(page, { source })).ids, GOLDEN);
    assert.deepEqual(ranges(), [0]);
  }));

test('an id alone means the hub itself, which says 401 for what it does not have', () =>
  fresh(async (page, context) => {
    const asked = [];
    await context.route('https://huggingface.co/**', (route) => {
      asked.push(route.request().url());
      return route.fulfill({ status: 401, headers: { 'access-control-allow-origin': '*' }, body: '{}' });
    });
    const got = await tell(page, { source: 'owner/nothing' });
    assert.match(`${got.code}: ${got.message}`, /^files: owner\/nothing/);
    assert.deepEqual(new Set(asked), new Set(['https://huggingface.co/api/models/owner/nothing/revision/main?blobs=true']));
  }));
