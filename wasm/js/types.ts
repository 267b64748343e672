// The package's interface. One `Engine`, the same in the page and in a worker.

import type { BenchReport, BenchRow } from './report.js';

export type * from './report.js';

/**
 * Where a model comes from: the URL of its folder, an id on the Hugging Face hub, or files that the user has chosen. The hub is
 * `https://huggingface.co` unless `endpoint` names a mirror of it.
 */
export type Source = string | { hub: string; revision?: string; endpoint?: string } | { files: readonly File[]; name?: string };

/** What the engine is doing while a model loads. */
export type Stage = 'device' | 'files' | 'weights' | 'compile' | 'ready';

/** How far loading is. */
export interface Progress {
  stage: Stage;
  /** Bytes of weights that are on the device. */
  done: number;
  /** Bytes of weights in all; 0 while that is unknown. */
  total: number;
  /** Bytes from the network, and bytes from storage whose checksum was right. */
  fetched: number;
  cached: number;
  /** Bytes per second, averaged over the last seconds. */
  rate: number;
  /** Bytes of memory of the wasm module. It does not grow with the model. */
  wasmBytes: number;
  /** A message for the user, such as that the weights cannot be stored. */
  notice?: string;
}

export interface LoadOptions {
  signal?: AbortSignal;
  onProgress?: (progress: Progress) => void;
  /** `q4` and `q8` quantise while the weights come in. Default `bf16`: as stored. */
  weights?: 'bf16' | 'q8' | 'q4';
  /** `f16` (default) or `f32`. */
  kv?: 'f16' | 'f32';
  /** How Mamba2 and DeltaNet blocks read a prompt: token by token, or in chunks. Default: what is fastest on the device. */
  scan?: 'serial' | 'chunked';
  /** Tokens of prompt and answer. Default 4096, or what the model allows. */
  context?: number;
  /** Largest number of sequences at a time, for `bench`. Default 1. */
  slots?: number;
  /** `auto` (default) takes the GPU, or the CPU if there is no GPU or only one in software. `cpu` runs the model in wasm. */
  device?: 'auto' | 'gpu' | 'cpu';
  /** Optional GPU features to leave unused. */
  deny?: readonly ('f16' | 'subgroups')[];
  /** Store the files in the browser's private file system, for the next time. Default true. */
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
  /** Longest answer in tokens. Default 200. */
  maxTokens?: number;
  /** How random the choice is; 0 always takes the most probable token. Default: as generation_config.json says, or 0.8. */
  temperature?: number;
  /** Choose among this many of the most probable tokens; 0 is off. Default: as generation_config.json says, or 40. */
  topK?: number;
  /** Choose among the most probable tokens whose probabilities sum to this. Default: as generation_config.json says, or 1. */
  topP?: number;
  /** Leave out tokens less probable than this times the most probable one. Default: as generation_config.json says, or 0. */
  minP?: number;
  /** Make tokens that the text already has less probable, by this factor. Default: as generation_config.json says, or 1. */
  repetitionPenalty?: number;
  /**
   * Seed of the random choices. The same seed, options, prompt, model and device give the same text. Default: random; `usage`
   * has the seed that was used.
   */
  seed?: number;
  /** Texts that end the answer. */
  stop?: readonly string[];
  /**
   * How the prompt is written for the model. Default: a text is continued as it is; messages are written by the model's chat
   * template if it has one, as `instruct` if its name contains "instruct", and as `text` otherwise.
   */
  format?: 'text' | 'instruct' | 'template';
  /** Whether the model thinks before it answers: `enable_thinking` in its chat template. Default: as the template says. */
  thinking?: boolean;
  /** Called while the prompt is read, with the number of tokens that were read and of all that must be read. */
  onPrefill?: (done: number, total: number) => void;
}

/** The next piece of an answer. The text is empty while a character is incomplete. */
export interface Chunk {
  text: string;
  /** The token's id. Missing in the last piece, which is text that was held back. */
  id?: number;
  /** Tokens so far, and seconds since the first of them. */
  tokens: number;
  seconds: number;
}

/** How long an answer took, and how it ended. */
export interface Usage {
  end: 'eos' | 'stop' | 'length' | 'context' | 'aborted';
  ids: number[];
  /** The seed that was used. */
  seed: number;
  loadSeconds: number;
  firstTokenSeconds: number;
  prefillTokens: number;
  prefillTokensPerSecond: number | null;
  decodeTokens: number;
  decodeTokensPerSecond: number | null;
  /** Seconds from the first token to each token. */
  tokenSeconds: number[];
}

/** An answer while it is generated. `usage` resolves when it is over. */
export interface Generation extends AsyncIterable<Chunk> {
  readonly usage: Promise<Usage>;
}

/** What the browser and its GPU offer. */
export interface Capabilities {
  webgpu: boolean;
  /** Why there is no GPU, in one sentence. */
  reason?: string;
  /** The browser's description of the adapter: vendor, architecture, device, description. */
  adapter?: Record<string, string>;
  software?: boolean;
  features?: string[];
  limits?: { maxBufferSize: number; maxStorageBufferBindingSize: number };
  subgroups?: [number, number] | null;
  f16?: boolean;
  storage?: { usage: number; quota: number; persistent: boolean };
  userAgent: string;
}

/** The memory that a model takes on the GPU, in bytes. */
export interface Plan {
  weights: number;
  /** Memory of sequences of the whole context: keys, values, recurrent states. */
  arena: number;
  /** Activations, logits, tables of rotary embeddings. */
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
  /** The defaults of `generate` for this model. `format` is that of a list of messages. */
  defaults: Required<Pick<GenerateOptions, 'temperature' | 'topK' | 'topP' | 'minP' | 'repetitionPenalty' | 'maxTokens' | 'format'>>;
  loadSeconds: number;
  /** Whether the files are stored for the next time. */
  cached: boolean;
  wasmBytes: number;
}

/** The comparison of an operator with the same computation on the CPU: the JSON of `nemoflash doctor --json`. */
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
  /** The largest number of examples per operator, the smallest first; 0 means all. Default 4. */
  examples?: number;
  onResult?: (result: OperatorResult) => void;
}

/** How far a benchmark is. */
export interface BenchProgress {
  /** The name of the test. */
  test: string;
  /** The number of the current run (0 is the uncounted one), and the number of counted runs. */
  run: number;
  runs: number;
}

export interface BenchOptions {
  signal?: AbortSignal;
  /**
   * Prompt lengths, in tokens, whose prefill is timed (`pp`), and numbers of tokens whose decode is timed (`tg`); 0 for none.
   * Default 512 and 128.
   */
  prompt?: number | readonly number[];
  tokens?: number | readonly number[];
  /** Prefill and decode timed together (`pp+tg`). */
  both?: readonly (readonly [prompt: number, tokens: number])[];
  /** Numbers of tokens in front of what is timed (`@ d`). Default 0. */
  depth?: number | readonly number[];
  /** Batch sizes: how many sequences run at a time (`b`), at most the `slots` that the model was loaded with. Default 1. */
  batch?: number | readonly number[];
  /** Tests to leave out. `gate` is the golden check, and the tokens that the model gives after a fixed prompt (`said`). */
  skip?: readonly ('gate' | 'load' | 'compile' | 'first_token')[];
  /** Counted runs of each test, and uncounted runs before them, which take at least half a second on a GPU. Default 5 and 1. */
  runs?: number;
  warmUp?: number;
  onProgress?: (progress: BenchProgress) => void;
  /** Called with each row as soon as it is measured, so that a stopped benchmark keeps its results. */
  onRow?: (row: BenchRow) => void;
}

export interface Engine {
  info(): Promise<Info>;
  /** Continues a text, or answers a conversation. An engine does one thing at a time. */
  generate(prompt: string | readonly Message[], options?: GenerateOptions): Generation;
  /** Runs the benchmark of `nemoflash bench`. If it is stopped, it fails with the code `aborted`. */
  bench(options?: BenchOptions): Promise<BenchReport>;
  /** Compares every operator on this device with the same computation on the CPU. `onResult` gets each result at once. */
  selfCheck(options?: SelfCheckOptions): Promise<OperatorResult[]>;
  /** For tests: destroys the device, as a driver's crash would. The next call loads the model again from storage. */
  loseDevice(): Promise<void>;
  close(): Promise<void>;
}

/** A model in the browser's storage. */
export interface CachedModel {
  key: string;
  name: string;
  bytes: number;
  /** Whether every piece is stored. */
  complete: boolean;
}
