/** Codes of the Rust core, and those that only a page has. */
export type ErrorCode =
  | 'no_adapter'
  | 'device'
  | 'limit'
  | 'out_of_memory'
  | 'config'
  | 'checkpoint'
  | 'tensors'
  | 'tokenizer'
  | 'template'
  | 'prompt'
  | 'parameter'
  | 'non_finite'
  | 'download'
  | 'files'
  | 'busy'
  | 'closed'
  | 'aborted'
  | 'panic';

/** Every failure of this package: what, why and what next in the message, and a stable code. */
export class NemoflashError extends Error {
  constructor(
    readonly code: ErrorCode,
    message: string,
  ) {
    super(message);
    // As the platform calls it, so that `error.name === 'AbortError'` holds.
    this.name = code === 'aborted' ? 'AbortError' : 'NemoflashError';
  }
}

export const aborted = () => new NemoflashError('aborted', 'stopped');

/** From anything that was thrown. */
export function typed(thrown: unknown): NemoflashError {
  if (thrown instanceof NemoflashError) return thrown;
  const { name, code, message } = (thrown ?? {}) as { name?: string; code?: unknown; message?: string };
  if (name === 'AbortError') return aborted();
  if (typeof code === 'string') return new NemoflashError(code as ErrorCode, message ?? code);
  if (typeof WebAssembly !== 'undefined' && thrown instanceof WebAssembly.RuntimeError) {
    return new NemoflashError('panic', `nemoflash has a bug and stopped: ${message}. Load the model again, and report it`);
  }
  return new NemoflashError('device', `unexpected: ${message ?? String(thrown)}. Reload the page`);
}
