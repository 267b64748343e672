// Compiles kernels with Dawn, the WebGPU implementation of Chromium, whose rules on uniform control flow
// and reserved words are stricter than naga's. Reads a JSON list of {name, device, text} from the file named
// on the command line; prints one line for each kernel that does not compile and a last line
// "compiled N, failed N"; exits with 1 if any failed, with 2 if Dawn does not run.
//
// Dawn's null backend checks everything and runs nothing: it needs no driver and has every feature.
import { readFileSync } from 'node:fs';
import { create, globals } from 'webgpu';

Object.assign(globalThis, globals);
const shaders = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const gpu = create(['backend=null']);
const adapter = await gpu.requestAdapter();
if (!adapter) {
  console.log('Dawn gives no adapter');
  process.exit(2);
}
// No limits are asked for: the device has those that every WebGPU device has.
const device = await adapter.requestDevice({ requiredFeatures: ['subgroups', 'shader-f16'] });

async function compile({ name, text }) {
  device.pushErrorScope('validation');
  const module = device.createShaderModule({ code: text });
  const { messages } = await module.getCompilationInfo();
  const errors = messages
    .filter((message) => message.type === 'error')
    .map(({ lineNum, message }) => `${message} in \`${text.split('\n')[lineNum - 1]?.trim()}\``);
  if (errors.length === 0) {
    const compute = { module, entryPoint: name };
    await device.createComputePipelineAsync({ layout: 'auto', compute }).catch((e) => errors.push(e.message));
  }
  const other = await device.popErrorScope();
  if (other && errors.length === 0) errors.push(other.message);
  return errors;
}

let [compiled, failed] = [0, 0];
for (const shader of shaders) {
  const errors = await compile(shader);
  for (const error of errors) console.log(`${shader.name} (${shader.device}): ${error}`);
  if (errors.length > 0) failed += 1;
  else compiled += 1;
}
console.log(`compiled ${compiled}, failed ${failed}`);
process.exit(failed > 0 ? 1 : 0);
