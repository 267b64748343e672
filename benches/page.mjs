// The page's wasm on a real GPU without a browser: Node and Dawn, Chromium's WebGPU. Prints the report of
// `engine.bench()` (report.schema.json), which `nemoflash compare` reads; fails if the golden tokens of `fables` are wrong.
//
//   npm ci --prefix tests/dawn && npm ci --prefix wasm && npm run build --prefix wasm
//   node benches/page.mjs [--model models/fables] [--context 1024] [--prompt 128] [--tokens 256] [--depth 0,512] [--runs 5] [--deny subgroups] [--device gpu|cpu]
//
// Encoding through Node's binding costs about ten times what it costs in a browser, so decode here is a lower bound.
import { openAsBlob, readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const { values } = parseArgs({
  options: {
    model: { type: 'string' },
    context: { type: 'string', default: '1024' },
    prompt: { type: 'string', default: '128' },
    tokens: { type: 'string', default: '256' },
    depth: { type: 'string', default: '0' },
    runs: { type: 'string', default: '5' },
    deny: { type: 'string' },
    device: { type: 'string', default: 'gpu' },
  },
});
const root = fileURLToPath(new URL('..', import.meta.url));
const { create, globals } = await import(createRequire(`${root}tests/dawn/`).resolve('webgpu'));
Object.assign(globalThis, globals);
Object.defineProperty(globalThis, 'navigator', { value: { gpu: create([]), userAgent: 'Node and Dawn' }, configurable: true });
// wgpu looks for a page or a worker before it looks for the GPU.
globalThis.WorkerGlobalScope = function () {};

const { LocalEngine } = await import(`${root}wasm/dist/local.js`);
const folder = values.model ?? `${root}models/fables`;
const names = readdirSync(folder).filter((name) => /\.(json|safetensors)$/.test(name));
const files = await Promise.all(names.map(async (name) => new File([await openAsBlob(`${folder}/${name}`)], name)));
const wasm = readFileSync(`${root}wasm/dist/pkg/nemoflash_bg.wasm`);
const deny = values.deny ? values.deny.split(',') : [];
const options = { device: values.device, deny, context: Number(values.context) };
const engine = await LocalEngine.load({ files, name: values.model ?? 'fables' }, options, wasm);

const report = await engine.bench({
  prompt: Number(values.prompt),
  tokens: Number(values.tokens),
  depth: values.depth.split(',').map(Number),
  runs: Number(values.runs),
});
console.log(JSON.stringify(report));
process.exit(report.rows.some(({ gate }) => gate === 'failed') ? 1 : 0);
