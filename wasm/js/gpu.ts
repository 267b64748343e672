// What the browser offers, and the two things that wgpu does not ask it for.

import type { Capabilities } from './types.js';

/** What this browser and this adapter offer, as data. */
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

/** Requests for devices come one after the other: `Devices.during` stands in the browser's own function for each. */
let turn: Promise<unknown> = Promise.resolve();

/** The devices that one engine has. A device keeps its memory until it is destroyed: wgpu only forgets it. */
export class Devices {
  private made: GPUDevice[] = [];

  /**
   * wgpu's web backend does not know the feature `subgroups`. While `make` runs, a device that is asked for is also asked
   * for that, if `wanted`; a device that could not be given it would not be given at all.
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
 * wgpu's web backend makes pipelines one by one, and a browser compiles those in the way of everything else. While `ask`
 * runs, pipelines that are asked for are made in threads of the browser's own, and what `ask` gets in their place is of
 * no use. Resolves with all of them: as long as they are held, the browser gives the same ones out again at once.
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
  // One that fails will fail again where somebody listens.
  return Promise.allSettled(pipelines);
}
