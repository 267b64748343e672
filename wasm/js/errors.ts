/** The error codes of the Rust core, and those that exist only in a page. */
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

/** Every failure of this package. Its message says what failed, why, and what to do next. Its code is stable. */
export class NemoflashError extends Error {
  constructor(
    readonly code: ErrorCode,
    message: string,
  ) {
    super(message);
    // `AbortError` is the platform's name for this error, so that `error.name === 'AbortError'` works.
    this.name = code === 'aborted' ? 'AbortError' : 'NemoflashError';
  }
}

export const aborted = () => new NemoflashError('aborted', 'stopped');

/** Turns anything that was thrown into an error of this package. */
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
