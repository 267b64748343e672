#!/usr/bin/env bash
# On an NVIDIA H200, all workgroups of a processor together get 48 KiB of workgroup memory from the Vulkan driver, although the
# processor has 228 KiB and CUDA gives them to it. So two workgroups with 32 KiB each never run on a processor at the same
# time. One would have guessed seven of them. The limit that WebGPU reports (48 KiB for one workgroup) does not show it: a
# kernel within the limit runs with few threads and waits for memory. Seen with driver 580.159.04 on a card with 132
# processors. The script counts how many workgroups run at the same time.
. "$(dirname "$0")/lib.sh"
python_with wgpu==0.32.0
cat >f.py <<'E'
import struct, sys, wgpu

found = [a for a in wgpu.gpu.enumerate_adapters_sync() if a.info["backend_type"] == "Vulkan"]
found = [a for a in found if len(sys.argv) > 1 or "H200" in a.info["device"]]
if not found:
    sys.exit()
adapter = found[0]
if len(sys.argv) < 2:
    print(adapter.info["device"])
most = adapter.limits["max-compute-workgroup-storage-size"]
device = adapter.request_device_sync(required_limits={"max-compute-workgroup-storage-size": most})
TEXT = """
@group(0) @binding(0) var<storage, read_write> running: array<atomic<u32>, 2>; // now, and the most
@group(0) @binding(1) var<storage, read_write> kept: array<u32>;
var<workgroup> memory: array<u32, WORDS>;
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    for (var i = local; i < WORDS; i += 64u) { memory[i] = (i * 7u + 1u) % WORDS; }
    if local == 0u { atomicMax(&running[1], atomicAdd(&running[0], 1u) + 1u); }
    workgroupBarrier();
    var at = local;
    for (var i = 0u; i < 20000u; i++) { at = memory[at]; }
    workgroupBarrier();
    if local == 0u { atomicSub(&running[0], 1u); }
    kept[group.x * 64u + local] = at;
}
"""
GROUPS = 4096
usage = wgpu.BufferUsage.STORAGE | wgpu.BufferUsage.COPY_SRC
kept = device.create_buffer(size=GROUPS * 64 * 4, usage=usage)
for kib in [8, 16, 24, 32, 48]:
    text = TEXT.replace("WORDS", f"{kib * 256}u")
    module = device.create_shader_module(code=text)
    pipeline = device.create_compute_pipeline(layout="auto", compute={"module": module, "entry_point": "main"})
    running = device.create_buffer(size=8, usage=usage)
    entries = [{"binding": i, "resource": {"buffer": b}} for i, b in enumerate([running, kept])]
    group = device.create_bind_group(layout=pipeline.get_bind_group_layout(0), entries=entries)
    encoder = device.create_command_encoder()
    compute = encoder.begin_compute_pass()
    compute.set_pipeline(pipeline)
    compute.set_bind_group(0, group)
    compute.dispatch_workgroups(GROUPS)
    compute.end()
    device.queue.submit([encoder.finish()])
    print(f"{kib} KiB: {struct.unpack('2I', device.queue.read_buffer(running))[1]} workgroups at the same time")
E
[ -n "$(venv/bin/python f.py 2>/dev/null)" ] || not_run "there is no NVIDIA H200 with Vulkan"
run venv/bin/python f.py
expect <<'E'
NVIDIA H200
8 KiB: 792 workgroups at the same time
16 KiB: 396 workgroups at the same time
24 KiB: 264 workgroups at the same time
32 KiB: 132 workgroups at the same time
48 KiB: 132 workgroups at the same time
E
