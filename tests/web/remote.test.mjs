// What is tried again, and how often: the package's downloads in Node, where nobody has to wait for them.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, beforeEach, test } from 'node:test';
import { WEIGHTS, root } from './harness.mjs';
import { serve } from './server.mjs';

const { RemoteFile } = await import(`${root}wasm/dist/remote.js`);
const here = readFileSync(`${root}models/fables/${WEIGHTS}`).subarray(0, 1000);

let server, file;
before(async () => (server = await serve({ '/': `${root}models/fables/` })));
after(() => server.close());
beforeEach(() => {
  server.faults.clear();
  server.requests.length = 0;
  file = new RemoteFile(server.url + WEIGHTS);
});

// Each twice the one before it; Node's own timers are left alone.
const WAITS = [600, 1200, 2400, 4800];
/** Runs `work` with waits of no length; `waited` is told how many there were. */
async function hurried(t, waited, work) {
  const { setTimeout } = globalThis;
  let waits = 0;
  t.mock.method(globalThis, 'setTimeout', (run, ms, ...more) =>
    WAITS.includes(ms) ? setTimeout(() => (waited((waits += 1)), run())) : setTimeout(run, ms, ...more));
  return work();
}
const refused = (pattern) => (error) => error.code === 'download' && pattern.test(error.message);

for (const [fault, pattern] of [['busy', /status 503/], ['cut', /connection broke/]]) {
  test(`${fault} may pass: it is tried again, five times at most`, async (t) => {
    await file.stat();
    await file.close();
    server.faults.set(WEIGHTS, fault);
    const bytes = await hurried(t, (waits) => waits === 3 && server.faults.clear(), () => file.read(0, here.length));
    assert.deepEqual(Buffer.from(bytes), here);
    assert.equal(server.requests.length, 1 + 4);
    t.mock.restoreAll();
    await file.close();
    server.faults.set(WEIGHTS, fault);
    await assert.rejects(hurried(t, () => {}, () => file.read(0, here.length)), refused(pattern));
    assert.equal(server.requests.length, 1 + 4 + 5);
  });
}

test('a server that is gone for good is an error of the download', async (t) => {
  const away = new RemoteFile('http://localhost:9/model.safetensors');
  await assert.rejects(hurried(t, () => {}, () => away.read(0, 10)), refused(/cannot be reached/));
});

test('what will not pass is not tried again', async (t) => {
  server.faults.set(WEIGHTS, 'gone');
  await assert.rejects(hurried(t, () => assert.fail('it waits'), () => file.read(0, here.length)), refused(/status 404/));
  assert.equal(server.requests.length, 1);
});
