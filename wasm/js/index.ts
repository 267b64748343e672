// nemoflash: Nemotron-Flash language models in a web page.

import { WorkerEngine } from './client.js';
import type { Engine, LoadOptions, Source } from './types.js';

export { NemoflashError, type ErrorCode } from './errors.js';
export { capabilities } from './gpu.js';
export { cachedModels, removeModel } from './store.js';
export * from './types.js';
export const version = '0.1.0';

/** Loads a model: a folder's URL, an id on the Hugging Face hub, or files of the person's own. */
export async function load(source: Source, options: LoadOptions = {}): Promise<Engine> {
  // Asked for once and not waited for: some browsers ask the person.
  if (options.cache !== false) void navigator.storage?.persist?.().catch(() => {});
  if (options.where === 'page') return (await import('./local.js')).LocalEngine.load(source, options);
  return WorkerEngine.load(source, options);
}
