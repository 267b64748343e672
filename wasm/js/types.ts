// The package's interface. One `Engine`, the same in the page and in a worker.

import type { BenchReport, BenchRow } from './report.js';

export type * from './report.js';

/**
 * Where a model comes from: the URL of its folder, an id on the Hugging Face hub, or files of the person's own. The hub is
 * `https://huggingface.co` unless `endpoint` names a mirror of it.
 */
export type Source = string | { hub: string; revision?: string; endpoint?: string } | { files: readonly File[]; name?: string };

/** What a model's progress is about. */
export type Stage = 'device' | 'files' | 'weights' | 'compile' | 'ready';

/** How far loading is: one kind of event for everything. */
export interface Progress {
  stage: Stage;
  /** Bytes of weights that are on the device. */
  done: number;
  /** Bytes of weights in all; 0 while that is unknown. */
  total: number;
  /** Bytes that came over the network, and bytes that came from storage and were intact. */
  fetched: number;
  cached: number;
  /** Bytes per second over the last seconds. */
  rate: number;
  /** Memory of the wasm so far: it does not grow with the model. */
  wasmBytes: number;
  /** What the person should know, such as that nothing is kept. */
  notice?: string;
}

export interface LoadOptions {
  signal?: AbortSignal;
  onProgress?: (progress: Progress) => void;
  /** `q4` and `q8` quantise while the weights come in. Default `bf16`: as stored. */
  weights?: 'bf16' | 'q8' | 'q4';
  /** `f16` (default) or `f32`. */
  kv?: 'f16' | 'f32';
  /** Tokens of prompt and answer. Default 4096, or what the model allows. */
  context?: number;
  /** Sequences at a time, for `bench`. Default 1. */
  slots?: number;
  /** `auto` (default) takes the GPU, and the CPU where there is none but software; `cpu` runs the twins of all kernels in wasm. */
  device?: 'auto' | 'gpu' | 'cpu';
  /** Optional GPU features not to use. */
  deny?: readonly ('f16' | 'subgroups')[];
  /** Keep the files in the browser's private file system. Default true. */
  cache?: boolean;
  /** `worker` (default) or `page`: where the engine runs. */
  where?: 'worker' | 'page';
}

/** One turn of a conversation. */
export interface Message {
  role: 'system' | 'user' | 'assistant';
  content: string;
}

export interface GenerateOptions {
  signal?: AbortSignal;
  /** Default 256. */
  maxTokens?: number;
  /** 0 (default) is greedy. */
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  repetitionPenalty?: number;
  /** The same seed, prompt, model and device give the same text. Default 0. */
  seed?: number;
  /** Texts that end the answer. */
  stop?: readonly string[];
  /** How messages are put to the model. Default: its chat template if it has one, else `text`. */
  format?: 'text' | 'instruct' | 'template';
  /** Whether the model thinks before it answers: its chat template sees it as `enable_thinking`. Default: as the template says. */
  thinking?: boolean;
  /** Hears of the prompt's progress, in tokens. */
  onPrefill?: (done: number, total: number) => void;
}

/** The next piece of an answer. The text may be empty, where a character is not complete yet. */
export interface Chunk {
  text: string;
  /** The token; none for the last piece, which is what was held back. */
  id?: number;
  /** Tokens so far, and seconds since the first of them. */
  tokens: number;
  seconds: number;
}

/** What an answer took. */
export interface Usage {
  end: 'eos' | 'stop' | 'length' | 'context' | 'aborted';
  ids: number[];
  loadSeconds: number;
  firstTokenSeconds: number;
  prefillTokens: number;
  prefillTokensPerSecond: number | null;
  decodeTokens: number;
  decodeTokensPerSecond: number | null;
  /** Seconds from the first token to each. */
  tokenSeconds: number[];
}

/** An answer as it comes, with what it took once it is over. */
export interface Generation extends AsyncIterable<Chunk> {
  readonly usage: Promise<Usage>;
}

/** What a device gives. */
export interface Capabilities {
  webgpu: boolean;
  /** Why there is no GPU, in one sentence. */
  reason?: string;
  /** The browser's own words: vendor, architecture, device, description. */
  adapter?: Record<string, string>;
  software?: boolean;
  features?: string[];
  limits?: { maxBufferSize: number; maxStorageBufferBindingSize: number };
  subgroups?: [number, number] | null;
  f16?: boolean;
  storage?: { usage: number; quota: number; persistent: boolean };
  userAgent: string;
}

/** Bytes on the GPU. */
export interface Plan {
  weights: number;
  /** What a sequence of the whole context remembers: keys, values, states. */
  arena: number;
  /** Activations, logits, angle tables. */
  scratch: number;
  context: number;
}

export interface Info {
  version: string;
  model: string;
  /** The adapter's name, or `cpu`. */
  device: string;
  /** Memory plan, kernels and dispatches: the JSON of `nemoflash explain --json`. */
  explain: Record<string, unknown>;
  caps: Record<string, unknown>;
  capabilities: Capabilities;
  chatTemplate: boolean;
  loadSeconds: number;
  /** Whether the files are kept for the next time. */
  cached: boolean;
  wasmBytes: number;
}

/** An operator held against its CPU twin: the JSON of `nemoflash doctor --json`. */
export interface OperatorResult {
  name: string;
  result: 'pass' | 'fail';
  examples: number;
  worst_ratio: number;
  tolerance: number;
  seconds: number;
  faults: string[];
}

export interface SelfCheckOptions {
  signal?: AbortSignal;
  /** Examples of each operator at most, the smallest first; 0 is all. Default 4. */
  examples?: number;
  onResult?: (result: OperatorResult) => void;
}

/** How far a benchmark is. */
export interface BenchProgress {
  /** What is measured. */
  test: string;
  /** The run that goes on, the first (0) being the one that does not count, and how many count. */
  run: number;
  runs: number;
}

export interface BenchOptions {
  signal?: AbortSignal;
  /** Tokens of the prompt (`pp`), and tokens that are decoded (`tg`), one or several; 0 for none. Default 512 and 128. */
  prompt?: number | readonly number[];
  tokens?: number | readonly number[];
  /** Prompt and decode in one (`pp+tg`). */
  both?: readonly (readonly [prompt: number, tokens: number])[];
  /** Tokens in front of what is timed (`@ d`). Default 0. */
  depth?: number | readonly number[];
  /** Sequences at a time (`b`), of at most the `slots` that the model was loaded with. Default 1. */
  batch?: number | readonly number[];
  /** What to leave out. `gate` are the golden tokens and what the model says. */
  skip?: readonly ('gate' | 'load' | 'compile' | 'first_token')[];
  /** Runs of each test that count, and runs in front of them that do not. Default 5 and 1. */
  runs?: number;
  warmUp?: number;
  onProgress?: (progress: BenchProgress) => void;
  /** Hears of each row as soon as it is there: what a benchmark that is stopped has found out. */
  onRow?: (row: BenchRow) => void;
}

export interface Engine {
  info(): Promise<Info>;
  /** Continues a text, or answers a conversation. One at a time. */
  generate(prompt: string | readonly Message[], options?: GenerateOptions): Generation;
  /** Measures, as `nemoflash bench` does. One that is stopped fails with the code `aborted`. */
  bench(options?: BenchOptions): Promise<BenchReport>;
  /** Runs every operator against its CPU twin on this device; results come as they are there. */
  selfCheck(options?: SelfCheckOptions): Promise<OperatorResult[]>;
  /** Destroys the device, as a driver's crash would: the next call brings it back from storage. */
  loseDevice(): Promise<void>;
  close(): Promise<void>;
}

/** A model in the browser's storage. */
export interface CachedModel {
  key: string;
  name: string;
  bytes: number;
  /** Whether every piece is there. */
  complete: boolean;
}
