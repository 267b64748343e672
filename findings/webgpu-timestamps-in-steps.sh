#!/usr/bin/env bash
# Dawn's timestamps are numbers of nanoseconds, but they come in steps of 65,536: a pass that takes less begins and ends at
# the same instant or one step apart. One would have guessed the driver's resolution, since nothing else has been asked for;
# Dawn rounds them unless its feature timestamp_quantization is turned off. So a single pass of a fast kernel cannot be timed.
. "$(dirname "$0")/lib.sh"
webgpu_on_swiftshader
cat >f.mjs <<'E'
import { device } from './webgpu.mjs';
const { QUERY_RESOLVE, COPY_SRC, COPY_DST, MAP_READ } = GPUBufferUsage;
const querySet = device.createQuerySet({ type: 'timestamp', count: 2 });
const resolved = device.createBuffer({ size: 16, usage: QUERY_RESOLVE | COPY_SRC });
const rests = new Set();
for (let i = 0; i < 20; i++) {
  const read = device.createBuffer({ size: 16, usage: MAP_READ | COPY_DST });
  const encoder = device.createCommandEncoder();
  encoder.beginComputePass({ timestampWrites: { querySet, beginningOfPassWriteIndex: 0, endOfPassWriteIndex: 1 } }).end();
  encoder.resolveQuerySet(querySet, 0, 2, resolved, 0);
  encoder.copyBufferToBuffer(resolved, 0, read, 0, 16);
  device.queue.submit([encoder.finish()]);
  await read.mapAsync(GPUMapMode.READ);
  for (const time of new BigUint64Array(read.getMappedRange())) rests.add(Number(time % 65536n));
}
const quantised = rests.size === 1 && rests.has(0);
console.log(`${process.env.DAWN_OPTION ?? 'as it comes'}: all of 40 timestamps are multiples of 65,536 ns: ${quantised}`);
process.exit(0);
E
both() {
    node f.mjs
    DAWN_OPTION=disable-dawn-features=timestamp_quantization node f.mjs
}
run both
expect <<'E'
driver: SwiftShader driver 5.0.0
as it comes: all of 40 timestamps are multiples of 65,536 ns: true
driver: SwiftShader driver 5.0.0
disable-dawn-features=timestamp_quantization: all of 40 timestamps are multiples of 65,536 ns: false
E
