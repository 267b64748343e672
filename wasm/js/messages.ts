// What page and worker say to each other.

import type {
  BenchOptions, BenchProgress, BenchReport, BenchRow, Chunk, GenerateOptions, Info, LoadOptions, Message, OperatorResult, Progress,
  SelfCheckOptions, Source, Usage,
} from './types.js';

type Plain<T> = Omit<T, 'signal' | 'onProgress' | 'onPrefill' | 'onResult' | 'onRow'>;

/** From the page. Each has a number; answers carry it. */
export type Request =
  | { kind: 'load'; source: Source; options: Plain<LoadOptions> }
  | { kind: 'info' }
  | { kind: 'generate'; prompt: string | readonly Message[]; options: Plain<GenerateOptions> }
  | { kind: 'bench'; options: Plain<BenchOptions> }
  | { kind: 'selfCheck'; options: Plain<SelfCheckOptions> }
  | { kind: 'loseDevice' }
  /** A panic on purpose, so that what follows can be tried. */
  | { kind: 'panic' }
  | { kind: 'close' };

export type Call = { id: number } & (Request | { kind: 'abort' });

/** From the worker: any number of news, then a result or an error. */
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
