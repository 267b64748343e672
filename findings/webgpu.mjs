// A device of Dawn. DAWN_OPTION may hold one option of Dawn's own.
import { create, globals } from 'webgpu';
Object.assign(globalThis, globals);

export const gpu = create(process.env.DAWN_OPTION ? [process.env.DAWN_OPTION] : []);
export const adapter = await gpu.requestAdapter();
console.log(`driver: ${adapter.info.description}`);
const features = ['timestamp-query', 'subgroups'].filter((name) => adapter.features.has(name));
export const device = await adapter.requestDevice({ requiredFeatures: features });

/** Runs `body`, WGSL that sees an input x and writes o[k], for each of the inputs, in one invocation; returns o. */
export async function each(body, inputs) {
  const code = `
    @group(0) @binding(0) var<storage, read> i: array<f32>;
    @group(0) @binding(1) var<storage, read_write> o: array<f32>;
    @compute @workgroup_size(1) fn main() {
      for (var k = 0u; k < ${inputs.length}u; k++) { let x = i[k]; ${body} }
    }`;
  const { STORAGE, COPY_SRC, COPY_DST, MAP_READ } = GPUBufferUsage;
  const size = 4 * inputs.length;
  const [input, output, read] = [STORAGE | COPY_DST, STORAGE | COPY_SRC, MAP_READ | COPY_DST].map((usage) => device.createBuffer({ size, usage }));
  device.queue.writeBuffer(input, 0, new Float32Array(inputs));
  const pipeline = device.createComputePipeline({ layout: 'auto', compute: { module: device.createShaderModule({ code }) } });
  const entries = [input, output].map((buffer, binding) => ({ binding, resource: { buffer } }));
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }));
  pass.dispatchWorkgroups(1);
  pass.end();
  encoder.copyBufferToBuffer(output, 0, read, 0, size);
  device.queue.submit([encoder.finish()]);
  await read.mapAsync(GPUMapMode.READ);
  return [...new Float32Array(read.getMappedRange())];
}
