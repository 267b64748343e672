// Builds the package into dist/: the core to wasm, its glue, wasm-opt, TypeScript. The wasm lies beside the JavaScript
// and is found through import.meta.url, so that no bundler needs a plugin.
//
//   npm ci && npm run build      needs cargo; adds the wasm target, and wasm-bindgen's command into target/tools
//
// Fails if the wasm is larger than it may be when it is compressed.
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { brotliCompressSync, gzipSync } from 'node:zlib';

const MOST = 2 << 20; // bytes, compressed by gzip
const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, '..');
const run = (command, ...args) => execFileSync(command, args, { cwd: here, stdio: 'inherit' });

// The command must have the version of the crate.
const version = /wasm-bindgen = "=([\d.]+)"/.exec(readFileSync(join(here, 'Cargo.toml'), 'utf8'))[1];
const tools = join(root, 'target/tools');
const bindgen = () => {
  for (const command of ['wasm-bindgen', join(tools, 'bin/wasm-bindgen')]) {
    try {
      if (execFileSync(command, ['--version'], { encoding: 'utf8' }).includes(version)) return command;
    } catch {} // not there
  }
  return null;
};

try {
  run('rustup', 'target', 'add', 'wasm32-unknown-unknown');
} catch {} // a toolchain without rustup may have it all the same
// The command without its tests of pages in browsers, for which it would compile a server and TLS.
const only = ['--bin', 'wasm-bindgen', '--no-default-features', '--debug'];
if (!bindgen()) run('cargo', 'install', 'wasm-bindgen-cli', '--version', version, '--root', tools, ...only);
// Rows of the benchmark tell the commit: what the variable says, or what git says of this repository.
const git = (...args) => execFileSync('git', args, { cwd: here, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
try {
  if (git('rev-parse', '--show-prefix') === 'wasm/') {
    process.env.NEMOFLASH_COMMIT ??= git('describe', '--always', '--dirty', '--abbrev=12', '--exclude=*');
  }
} catch {} // not known
run('cargo', 'build', '--locked', '--profile', 'web', '--target', 'wasm32-unknown-unknown', '-p', 'nemoflash-wasm');

const glue = join(here, 'js/pkg');
const built = join(root, 'target/wasm32-unknown-unknown/web/nemoflash_wasm.wasm');
rmSync(glue, { recursive: true, force: true });
run(bindgen(), '--target', 'web', '--out-dir', glue, '--out-name', 'nemoflash', built);

const wasm = join(glue, 'nemoflash_bg.wasm');
const features = ['bulk-memory', 'bulk-memory-opt', 'sign-ext', 'mutable-globals', 'nontrapping-float-to-int',
  'reference-types', 'multivalue', 'call-indirect-overlong', 'simd'].map((name) => `--enable-${name}`);
// rustc has optimised this code. -O3 took 64 s and -O1 18 s, with as many bytes (gzip 1,448,651 and 1,450,025) and as much
// speed (on the CPU in Node: 211 and 245 tokens/s of a prompt, 195 and 188 of an answer; four turns, which differ by 15 %).
run(process.execPath, join(here, 'node_modules/binaryen/bin/wasm-opt'), '-O1', ...features, wasm, '-o', wasm);

rmSync(join(here, 'dist'), { recursive: true, force: true });
run(process.execPath, join(here, 'node_modules/typescript/bin/tsc'));
const out = join(here, 'dist/pkg');
mkdirSync(out, { recursive: true });
for (const name of readdirSync(glue)) cpSync(join(glue, name), join(out, name), { recursive: true });

// npm packs no links, so the licences are copied.
for (const name of ['LICENSE-MIT', 'LICENSE-APACHE']) cpSync(join(root, name), join(here, name));

const bytes = readFileSync(wasm);
const [raw, gzip, brotli] = [bytes.length, gzipSync(bytes, { level: 9 }).length, brotliCompressSync(bytes).length];
writeFileSync(join(here, 'dist/size.json'), JSON.stringify({ raw, gzip, brotli }) + '\n');
console.log(`nemoflash_bg.wasm: ${raw} bytes, gzip ${gzip}, brotli ${brotli}`);
if (gzip > MOST || !existsSync(join(here, 'dist/index.js'))) {
  console.error(`the wasm may have ${MOST} bytes compressed`);
  process.exit(1);
}
