// nemoflash: Nemotron-Flash language models in a web page.

import { WorkerEngine } from './client.js';
import type { Engine, LoadOptions, Plan, Source } from './types.js';

export { NemoflashError, type ErrorCode } from './errors.js';
export { capabilities } from './gpu.js';
export { cachedModels, removeModel } from './store.js';
export * from './types.js';
export const version = '0.1.0';

/**
 * The memory plan of a model, found by a dry run: how much memory of this browser's GPU the model would take. Nothing is
 * loaded. `model` is a published shape (`nemotron-flash-1b`, `nemotron-flash-3b`, `qwen3-0.6b`, `qwen3-1.7b`) or the bytes of a
 * `config.json`. Fails with the code `limit` if a buffer would be larger than the GPU allows.
 */
export async function plan(model: string | Uint8Array, options: Pick<LoadOptions, 'weights' | 'context' | 'kv' | 'scan'> = {}): Promise<Plan> {
  return (await import('./local.js')).plan(model, options);
}

/** Loads a model: a folder's URL, an id on the Hugging Face hub, or files that the user has chosen. */
export async function load(source: Source, options: LoadOptions = {}): Promise<Engine> {
  // The result is not waited for, because some browsers ask the user.
  if (options.cache !== false) void navigator.storage?.persist?.().catch(() => {});
  if (options.where === 'page') return (await import('./local.js')).LocalEngine.load(source, options);
  return WorkerEngine.load(source, options);
}
