// What a benchmark tells, natively and in a page: `benches/report.schema.json` in types. benches/src/report.rs says what each
// word means.

/** Statistics of some numbers. The interval (95 %) is that of the median. */
export interface BenchSummary {
  mean: number;
  sd: number;
  median: number;
  low: number;
  high: number;
}

export interface BenchTest {
  /** In llama-bench's words: `pp512`, `tg128`, `tg128 @ d4096`; or `load`, `compile`, `first token`. */
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
  /** Seconds from each token to the next; empty where the browser's clock is too coarse for that. */
  token_samples: number[];
  token_seconds: { p50: number; p90: number; p99: number; max: number } | null;
  bytes_per_second: number | null;
  bandwidth_share: number | null;
  busy_share: number | null;
}

/** One test on one device. A row can be understood alone. */
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
    bytes_per_token: number;
    dispatches_per_token: number;
    weight_bytes: number;
    arena_bytes: number;
    scratch_bytes: number;
  };
  /** Whether `fables` gave its golden tokens on this device. */
  gate: 'passed' | 'failed' | 'not_run';
  /** What this model says on the device after a fixed prompt, greedily. All devices should say the same. */
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
