// The messages between page and worker.

import type {
  BenchOptions, BenchProgress, BenchReport, BenchRow, Chunk, GenerateOptions, Info, LoadOptions, Message, OperatorResult, Progress,
  SelfCheckOptions, Source, Usage,
} from './types.js';

type Plain<T> = Omit<T, 'signal' | 'onProgress' | 'onPrefill' | 'onResult' | 'onRow'>;

/** A message from the page. Each has a number, and its answers have the same number. */
export type Request =
  | { kind: 'load'; source: Source; options: Plain<LoadOptions> }
  | { kind: 'info' }
  | { kind: 'generate'; prompt: string | readonly Message[]; options: Plain<GenerateOptions> }
  | { kind: 'bench'; options: Plain<BenchOptions> }
  | { kind: 'selfCheck'; options: Plain<SelfCheckOptions> }
  | { kind: 'loseDevice' }
  /** Panics on purpose, for tests of what happens after a panic. */
  | { kind: 'panic' }
  | { kind: 'close' };

export type Call = { id: number } & (Request | { kind: 'abort' });

/** A message from the worker. For each request there are any number of events, and then a result or an error. */
export type News =
  | { kind: 'progress'; progress: Progress }
  | { kind: 'prefill'; done: number; total: number }
  | { kind: 'chunk'; chunk: Chunk }
  | { kind: 'operator'; result: OperatorResult }
  | { kind: 'run'; progress: BenchProgress }
  | { kind: 'row'; row: BenchRow };

export type Result = Info | Usage | BenchReport | OperatorResult[] | null;

export type Answer = { id: number } & (
  | News
  | { kind: 'result'; result: Result }
  | { kind: 'error'; code: string; message: string }
);
