// What the browser's GPU offers, and two things that wgpu does not do in a browser: the feature `subgroups`, and compilation of
// pipelines in the background.

import type { Capabilities } from './types.js';

/** What this browser and its adapter offer. */
export async function capabilities(): Promise<Capabilities> {
  const { userAgent } = navigator;
  const storage = await storageState();
  const without = (reason: string): Capabilities => ({ webgpu: false, reason, storage, userAgent });
  if (!globalThis.isSecureContext && !('process' in globalThis)) return without('WebGPU needs https or localhost');
  if (!navigator.gpu) return without('this browser has no WebGPU');
  const adapter = await navigator.gpu.requestAdapter({ powerPreference: 'high-performance' }).catch(() => null);
  if (!adapter) return without('this browser has WebGPU, but no GPU adapter that it would use');
  const { vendor, architecture, device, description } = adapter.info;
  const info = adapter.info as GPUAdapterInfo & { subgroupMinSize?: number; subgroupMaxSize?: number };
  const subgroups = adapter.features.has('subgroups') && info.subgroupMinSize !== undefined;
  const { maxBufferSize, maxStorageBufferBindingSize } = adapter.limits;
  return {
    webgpu: true,
    adapter: { vendor, architecture, device, description },
    software: Boolean(info.isFallbackAdapter) || architecture === 'swiftshader',
    features: [...adapter.features].sort(),
    limits: { maxBufferSize, maxStorageBufferBindingSize },
    subgroups: subgroups ? [info.subgroupMinSize!, info.subgroupMaxSize!] : null,
    f16: adapter.features.has('shader-f16'),
    storage,
    userAgent,
  };
}

async function storageState(): Promise<Capabilities['storage']> {
  try {
    const { usage, quota } = await navigator.storage.estimate();
    return { usage: usage ?? 0, quota: quota ?? 0, persistent: await navigator.storage.persisted() };
  } catch {
    return undefined;
  }
}

type Prototype = { requestDevice: GPUAdapter['requestDevice'] };

/** Requests for devices run one after the other, because `Devices.during` replaces the browser's own function during each. */
let turn: Promise<unknown> = Promise.resolve();

/** The devices of one engine. They must be destroyed explicitly: wgpu only drops its handle, and a device keeps its memory. */
export class Devices {
  private made: GPUDevice[] = [];

  /**
   * wgpu's web backend does not know the feature `subgroups`. While `make` runs, this function adds it to requests for a device
   * if `wanted` is set. Set it only if the adapter has the feature: a request for a feature that an adapter lacks fails.
   */
  during<T>(wanted: boolean, make: () => Promise<T>): Promise<T> {
    const prototype = (globalThis as { GPUAdapter?: { prototype: Prototype } }).GPUAdapter?.prototype;
    if (!prototype) return make();
    const { made } = this;
    const run = async () => {
      const original = prototype.requestDevice;
      prototype.requestDevice = async function (this: GPUAdapter, descriptor: GPUDeviceDescriptor = {}) {
        const features = new Set(descriptor.requiredFeatures ?? []);
        if (wanted) features.add('subgroups' as GPUFeatureName);
        const device = await original.call(this, { ...descriptor, requiredFeatures: [...features] });
        made.push(device);
        return device;
      };
      try {
        return await make();
      } finally {
        prototype.requestDevice = original;
      }
    };
    const result = turn.then(run);
    turn = result.catch(() => {});
    return result;
  }

  destroy(): void {
    for (const device of this.made.splice(0)) device.destroy();
  }
}

/**
 * wgpu's web backend makes pipelines one by one, and everything else waits while the browser compiles each. While `ask` runs,
 * the browser compiles the pipelines that are asked for in threads of its own; the objects that `ask` gets instead must not be
 * used. Resolves with all pipelines. As long as they are held, the browser returns the same ones at once when they are asked
 * for again.
 */
export async function compiling(ask: () => Promise<void>): Promise<unknown> {
  const scope = globalThis as { GPUDevice?: { prototype: GPUDevice }; GPUComputePipeline?: { prototype: GPUComputePipeline } };
  if (!scope.GPUDevice || !scope.GPUComputePipeline) return null;
  const [{ prototype }, place] = [scope.GPUDevice, scope.GPUComputePipeline.prototype];
  const original = prototype.createComputePipeline;
  const pipelines: Promise<GPUComputePipeline>[] = [];
  prototype.createComputePipeline = function (this: GPUDevice, descriptor) {
    pipelines.push(this.createComputePipelineAsync(descriptor));
    return Object.create(place) as GPUComputePipeline;
  };
  try {
    await ask();
  } finally {
    prototype.createComputePipeline = original;
  }
  // A pipeline that fails here fails again when the engine asks for it, and that error is reported.
  return Promise.allSettled(pipelines);
}
