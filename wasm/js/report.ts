// The report of a benchmark, native or in a page: the types of `benches/report.schema.json`. benches/src/report.rs explains
// each field.

/** Statistics of a list of numbers. `low` and `high` are the 95 % interval of the median. */
export interface BenchSummary {
  mean: number;
  sd: number;
  median: number;
  low: number;
  high: number;
}

export interface BenchTest {
  /** The name, as in llama-bench: `pp512`, `tg128`, `tg128 @ d4096`; or `load`, `compile`, `first token`. */
  name: string;
  kind: 'load' | 'compile' | 'first_token' | 'prefill' | 'decode' | 'end_to_end';
  prompt: number;
  tokens: number;
  depth: number;
  batch: number;
}

export interface BenchTime {
  clock: 'wall' | 'device';
  /** Seconds of each counted run. */
  samples: number[];
  seconds: BenchSummary | null;
  tokens_per_second: BenchSummary | null;
  /** Seconds from each token to the next. Empty if the browser's clock is too coarse for that. */
  token_samples: number[];
  token_seconds: { p50: number; p90: number; p99: number; max: number } | null;
  bytes_per_second: number | null;
  bandwidth_share: number | null;
  busy_share: number | null;
}

/** One test on one device. A row says everything that its numbers depend on. */
export interface BenchRow {
  schema: 'nemoflash-bench/1';
  date: string;
  software: { version: string; commit: string | null; wgpu: string; runtime: 'native' | 'browser' | 'node'; host: string };
  device: {
    adapter: string;
    backend: string;
    kind: 'discrete' | 'integrated' | 'virtual' | 'cpu' | 'other';
    driver: string;
    f16: boolean;
    subgroup: number | null;
    coopmat: boolean;
    denied: string[];
  };
  model: {
    name: string;
    synthetic: boolean;
    weights: string;
    kv: 'f16' | 'f32';
    prefill_scan?: 'serial' | 'chunked';
    bytes_per_token: number;
    dispatches_per_token: number;
    weight_bytes: number;
    arena_bytes: number;
    scratch_bytes: number;
  };
  /** The golden check: whether `fables` gave the tokens of the reference on this device. */
  gate: 'passed' | 'failed' | 'not_run';
  /** The ids of the most probable tokens that this model gives after a fixed prompt. They should be the same on all devices. */
  said?: number[];
  test: BenchTest;
  time: BenchTime;
  operators: { part: string; kernel: string; op: string; dispatches: number; seconds: number; bytes: number }[];
  warnings: string[];
  /** Why there is no result. */
  error: string | null;
}

/** The report that `nemoflash compare` reads. */
export interface BenchReport {
  schema: 'nemoflash-bench/1';
  rows: BenchRow[];
}
