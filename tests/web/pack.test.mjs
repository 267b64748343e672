// What `npm pack` puts into the package: the built files, types, README and licences, and nothing else.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** What is missing, and what does not belong there. */
function faults(files) {
  const wanted = ['package.json', 'README.md', 'LICENSE-MIT', 'LICENSE-APACHE', 'dist/index.js', 'dist/index.d.ts', 'dist/local.js',
    'dist/local.d.ts', 'dist/types.d.ts', 'dist/worker.js', 'dist/pkg/nemoflash.js', 'dist/pkg/nemoflash_bg.wasm'];
  const known = (name) => name.startsWith('dist/') || wanted.includes(name);
  return [...wanted.filter((name) => !files.includes(name)), ...files.filter((name) => !known(name))];
}

test('the npm package is whole', () => {
  const said = execFileSync('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], { cwd: `${root}wasm`, encoding: 'utf8' });
  const listed = JSON.parse(said);
  const [packed] = Array.isArray(listed) ? listed : Object.values(listed);
  const files = packed.files.map(({ path }) => path);
  assert.deepEqual(faults(files), []);
  assert.deepEqual(faults(files.filter((name) => name !== 'LICENSE-MIT')), ['LICENSE-MIT']);
  assert.deepEqual(faults([...files, 'build.mjs']), ['build.mjs']);
  for (const name of ['LICENSE-MIT', 'LICENSE-APACHE']) {
    assert.equal(readFileSync(`${root}wasm/${name}`, 'utf8'), readFileSync(root + name, 'utf8'));
  }
  const { exports, types } = JSON.parse(readFileSync(`${root}wasm/package.json`, 'utf8'));
  const named = [types, ...Object.values(exports).flatMap((entry) => Object.values(entry))].map((path) => path.slice(2));
  assert.deepEqual(named.filter((name) => !files.includes(name)), []);
});
