// The engine in the thread where the wasm runs: in a worker, in the page, or in Node.

import init, {
  Device, Loading, SelfCheck, type Session, Text, index_files, last_panic, pause_with, dry_run as dryRun, published, version,
} from './pkg/nemoflash.js';
import { generation } from './channel.js';
import { NemoflashError, aborted, typed } from './errors.js';
import { Devices, capabilities, compiling } from './gpu.js';
import { host } from './host.js';
import { Meter } from './meter.js';
import { SMALL, absolute, filesOf, type Files, type WeightFile } from './source.js';
import { ModelStore, keyOf } from './store.js';
import type {
  BenchOptions, BenchReport, BenchRow, Capabilities, Chunk, Engine, GenerateOptions, Generation, Info, LoadOptions, Message,
  OperatorResult, Plan, SelfCheckOptions, Source, Usage,
} from './types.js';
import { Weights } from './weights.js';

let started: Promise<WebAssembly.Memory> | null = null;

/** Compiles the wasm once. Its file lies beside this one. In Node, its bytes are given instead. */
export function start(bytes?: BufferSource): Promise<WebAssembly.Memory> {
  return (started ??= init(bytes ? { module_or_path: bytes } : undefined).then((exports) => {
    pause_with(pause);
    return exports.memory;
  }));
}

const now = () => performance.now() / 1000;
const WEIGHT_LIST = 'weights.json';
/** Lets other tasks of this thread run. */
const pause = () =>
  new Promise<void>((done) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => (port1.close(), done());
    port2.postMessage(0);
  });

type Held = { free(): void };

/** Frees an object of the wasm. Errors are ignored: after a panic the wasm is unreliable, and all its memory goes with it. */
function free(held: Held | null): void {
  try {
    held?.free();
  } catch {}
}

type State = 'free' | 'busy' | 'spoilt' | 'closed' | 'dead';

/** The options for loading, as the wasm takes them. */
export const loadingOptions = ({ weights = 'bf16', context, slots = 1, kv, scan }: Pick<LoadOptions, 'weights' | 'context' | 'slots' | 'kv' | 'scan'>) =>
  JSON.stringify({ weights, context: context ?? null, slots, kv_f32: kv === 'f32', scan: scan ?? null });

/** See `plan` of the package. */
export async function plan(model: string | Uint8Array, options: Parameters<typeof loadingOptions>[0]): Promise<Plan> {
  await start();
  const config = typeof model === 'string' ? published(model) : model;
  if (!config) throw new NemoflashError('parameter', `${model} is not a published shape. Give its config.json`);
  const { limits } = await capabilities();
  // The CPU has no limits of bindings and buffers.
  const [binding, buffer] = [limits?.maxStorageBufferBindingSize ?? 2 ** 40, limits?.maxBufferSize ?? 2 ** 40];
  try {
    const { device_bytes, context } = JSON.parse(await dryRun(config, binding, buffer, loadingOptions(options)));
    return { ...device_bytes, context };
  } catch (thrown) {
    throw typed(thrown);
  }
}

export class LocalEngine implements Engine {
  private session: Session | null = null;
  private readonly devices = new Devices();
  private memory!: WebAssembly.Memory;
  private offered!: Capabilities;
  private name = '';
  private kept = false;
  private loadSeconds = 0;
  private loaded = false;
  private state: State = 'spoilt';

  private constructor(
    private readonly source: Source,
    private readonly options: Omit<LoadOptions, 'signal' | 'onProgress' | 'where'>,
  ) {}

  static async load(source: Source, options: LoadOptions = {}, wasm?: BufferSource): Promise<LocalEngine> {
    const { signal, onProgress, where: _, ...rest } = options;
    const engine = new LocalEngine(absolute(source), rest);
    await engine.guard(async () => {
      engine.memory = await start(wasm);
      await engine.open(onProgress, signal);
      engine.loaded = true;
    });
    return engine;
  }

  /** Every call goes through this function. It permits one call at a time, and gives errors their code. */
  private async guard<T>(work: () => Promise<T>): Promise<T> {
    if (this.state === 'busy') throw new NemoflashError('busy', 'the engine is at work. Wait, or stop what it does');
    if (this.state === 'closed') throw new NemoflashError('closed', 'the engine is closed. Load the model again');
    if (this.state === 'dead') throw new NemoflashError('panic', 'the engine stopped. Load the model again');
    const spoilt = this.state === 'spoilt';
    // After an error, the old state stays until a call succeeds.
    let next: State = this.state;
    this.state = 'busy';
    try {
      if (spoilt && this.loaded) {
        await this.open();
        next = 'free';
      }
      const result = await work();
      next = 'free';
      return result;
    } catch (thrown) {
      const error = typed(thrown);
      if (error.code === 'panic') {
        next = 'dead';
        throw new NemoflashError('panic', `${error.message} (${last_panic() ?? 'no message'})`);
      }
      // The next call opens the device again and loads the model from storage.
      if (error.code === 'device') next = 'spoilt';
      throw error;
    } finally {
      this.state = next;
    }
  }

  private async device(devices: Devices): Promise<Device> {
    const { device = 'auto', deny = [] } = this.options;
    this.offered = await capabilities();
    // A GPU in software is slower than the CPU twins, so it is used only on request.
    const cpu = device === 'cpu' || (device === 'auto' && (!this.offered.webgpu || this.offered.software));
    if (!cpu && !this.offered.webgpu) {
      throw new NemoflashError('no_adapter', `${this.offered.reason}. Use another browser, or the CPU (device: 'cpu')`);
    }
    const page_subgroups = !cpu && Boolean(this.offered.subgroups) && !deny.includes('subgroups');
    const software = Boolean(this.offered.software);
    const wanted = { cpu, software, deny_f16: deny.includes('f16'), deny_subgroups: deny.includes('subgroups'), page_subgroups };
    return devices.during(page_subgroups, () => Device.open(JSON.stringify(wanted)));
  }

  private async open(onProgress?: LoadOptions['onProgress'], signal?: AbortSignal): Promise<void> {
    const begun = now();
    this.release();
    const files = filesOf(this.source, signal);
    this.name = files.name;
    const meter = new Meter(this.memory, (progress) => {
      if (signal?.aborted) throw aborted();
      onProgress?.(progress);
    });
    const parts: Weights[] = [];
    // The object of the wasm that must be freed if the next call fails. A call that takes such an object also frees it.
    let held: Held | null = null;
    try {
      meter.stage('device');
      const device = (held = await this.device(this.devices));
      meter.stage('files');
      const store = await this.store(files, meter);
      const small = await this.small(files, store);
      for (const file of await this.weightList(files, store)) {
        const part = new Weights(file, meter.counts, signal, (text) => meter.notice(text));
        parts.push(part);
        await part.open(store);
      }
      held = null;
      const lengths = Float64Array.from(parts, (part) => part.length);
      const loading = new Loading(device, small('config.json')!, lengths, loadingOptions(this.options));
      held = loading;
      let compiled: Promise<unknown> | null = null;
      meter.stage('weights');
      for (let want = loading.wants(); want; want = loading.wants()) {
        const [file, offset] = [want[0]!, want[1]!];
        const part = parts[file]!;
        if (offset >= part.length) break;
        const { start, bytes } = await part.piece(offset);
        const [done, total] = await loading.push(file, start, bytes);
        meter.weights(done!, total!);
        // All kernels are known when the headers are read. They compile while the weights come.
        if (total! > 0) compiled ??= compiling(() => loading.announce());
      }
      meter.stage('compile');
      const text = new Text(
        files.name, small('tokenizer.json')!, small('generation_config.json'), small('tokenizer_config.json'),
        small('special_tokens_map.json'), small('chat_template.jinja'), small('chat_template.json'),
      );
      // The pipelines are held until the engine holds them, too.
      const pipelines = await compiled;
      held = null;
      this.session = await loading.finish(text);
      for (const note of this.session.notes()) meter.notice(note);
      void pipelines;
      this.kept = store !== null && parts.every((part) => part.kept);
      this.loadSeconds = now() - begun;
      meter.stage('ready');
    } catch (error) {
      free(held);
      this.release();
      throw error;
    } finally {
      for (const part of parts) await part.close();
    }
  }

  /** Frees the memory of the wasm and of the GPU. */
  private release(): void {
    free(this.session);
    this.session = null;
    this.devices.destroy();
  }

  /** Storage for a model that comes over the network. */
  private async store(files: Files, meter: Meter): Promise<ModelStore | null> {
    if (this.options.cache === false || files.place.startsWith('files:') || !navigator.storage?.getDirectory) return null;
    try {
      return await ModelStore.open(await keyOf(files.place, files.name), files.name);
    } catch (error) {
      meter.notice(`The model is not kept for the next time: storage is not available (${(error as Error).message}).`);
      return null;
    }
  }

  /** The small files, from their source. If it cannot be reached, the stored ones are used. */
  private async small(files: Files, store: ModelStore | null): Promise<(name: string) => Uint8Array | undefined> {
    const all = new Map<string, Uint8Array>();
    for (const name of SMALL) {
      try {
        const bytes = await files.small(name);
        if (!bytes) continue;
        all.set(name, bytes);
        await store?.putSmall(name, files.place, bytes).catch(() => {});
      } catch (error) {
        if (!(error instanceof NemoflashError) || error.code !== 'download') throw error;
        const kept = await store?.small(name);
        if (kept) all.set(name, kept);
        else if (name === 'config.json' || name === 'tokenizer.json') throw error;
      }
    }
    return (name) => all.get(name);
  }

  private async weightList(files: Files, store: ModelStore | null): Promise<WeightFile[]> {
    try {
      const list = await files.weights((json) => index_files(json));
      const kept = new TextEncoder().encode(JSON.stringify(list));
      await store?.putSmall(WEIGHT_LIST, files.place, kept).catch(() => {});
      return list;
    } catch (error) {
      const kept = await store?.small(WEIGHT_LIST);
      if (!kept || !(error instanceof NemoflashError) || error.code !== 'download') throw error;
      return JSON.parse(new TextDecoder().decode(kept)) as WeightFile[];
    }
  }

  info(): Promise<Info> {
    return this.guard(async () => {
      const { name, caps } = this.described();
      return {
        version: version(),
        model: this.name,
        device: name,
        explain: JSON.parse(this.session!.explain()) as Record<string, unknown>,
        caps,
        capabilities: this.offered,
        chatTemplate: this.session!.has_template(),
        defaults: JSON.parse(this.session!.defaults()) as Info['defaults'],
        loadSeconds: this.loadSeconds,
        cached: this.kept,
        wasmBytes: this.memory.buffer.byteLength,
      };
    });
  }

  /** Name, features and limits of the device. If the core has no name for it, the browser's description is its name. */
  private described(): { name: string; caps: Record<string, unknown> } {
    const { name, caps } = JSON.parse(this.session!.describe()) as { name: string; caps: Record<string, unknown> };
    const { adapter } = this.offered;
    const words = [adapter?.vendor, adapter?.architecture, adapter?.description].filter(Boolean).join(' ');
    return { name: name || words || 'WebGPU adapter without a name', caps };
  }

  generate(prompt: string | readonly Message[], options: GenerateOptions = {}): Generation {
    let stopped = false;
    const run = (push: (chunk: Chunk) => void) => this.guard(() => this.answer(prompt, options, push, () => stopped));
    return generation(run, () => (stopped = true));
  }

  private async answer(
    prompt: string | readonly Message[],
    options: GenerateOptions,
    push: (chunk: Chunk) => void,
    stopped: () => boolean,
  ): Promise<Usage> {
    const messages = typeof prompt === 'string' ? [{ role: 'user', content: prompt }] : prompt;
    const seed = Math.trunc(options.seed ?? crypto.getRandomValues(new Uint32Array(1))[0]!);
    const settings = {
      // The core has the defaults of all options that are not given, so they are the same as those of the command.
      max_tokens: options.maxTokens ?? null,
      temperature: options.temperature ?? null,
      top_k: options.topK ?? null,
      top_p: options.topP ?? null,
      min_p: options.minP ?? null,
      repetition_penalty: options.repetitionPenalty ?? null,
      seed: BigInt.asUintN(64, BigInt(seed)).toString(),
      stop: options.stop ?? [],
      format: options.format ?? (typeof prompt === 'string' ? 'text' : null),
      thinking: options.thinking ?? null,
    };
    const begun = now();
    const ids: number[] = [];
    const times: number[] = [];
    let prefillTokens = 0;
    let first = 0;
    const onEvent = (kind: string, number: number, more: number | string) => {
      if (kind === 'prefill') {
        prefillTokens = more as number;
        options.onPrefill?.(number, prefillTokens);
      } else if (kind === 'token') {
        first ||= now();
        ids.push(number);
        times.push(now() - first);
        push({ text: more as string, id: number, tokens: ids.length, seconds: times.at(-1)! });
      } else {
        push({ text: more as string, tokens: ids.length, seconds: times.at(-1) ?? 0 });
      }
      return stopped() || Boolean(options.signal?.aborted);
    };
    if (options.signal?.aborted) throw aborted();
    const end = (await this.session!.generate(JSON.stringify(messages), JSON.stringify(settings), onEvent)) as Usage['end'];
    return this.usage(end, ids, times, prefillTokens, first ? first - begun : 0, seed);
  }

  private usage(end: Usage['end'], ids: number[], times: number[], prefillTokens: number, first: number, seed: number): Usage {
    const rate = (tokens: number, seconds: number) => (tokens > 0 && seconds > 0 ? tokens / seconds : null);
    return {
      end,
      ids,
      seed,
      loadSeconds: this.loadSeconds,
      firstTokenSeconds: first,
      prefillTokens,
      prefillTokensPerSecond: rate(prefillTokens, first),
      decodeTokens: Math.max(ids.length - 1, 0),
      decodeTokensPerSecond: rate(ids.length - 1, times.at(-1) ?? 0),
      tokenSeconds: times,
    };
  }

  bench({
    prompt = 512, tokens = 128, both = [], depth = [0], batch = [1], skip = [], runs = 5, warmUp = 1, signal, onProgress, onRow,
  }: BenchOptions = {}): Promise<BenchReport> {
    return this.guard(async () => {
      const { name: adapter } = this.described();
      const cpu = adapter === 'cpu';
      const list = (numbers: number | readonly number[]) => (typeof numbers === 'number' ? [numbers] : numbers);
      const settings = {
        prompts: list(prompt), tokens: list(tokens), pairs: both, depths: list(depth), batches: list(batch), runs, adapter,
        warm_up: warmUp,
        skip: skip.filter((kind) => kind !== 'gate'),
        gate: !skip.includes('gate'),
        compile_seconds: [] as number[],
        model: this.name,
        load_seconds: this.loadSeconds,
        software: cpu || Boolean(this.offered.software),
        denied: this.options.deny ?? [],
        ...(await host()),
      };
      let [test, told] = ['', -1];
      const onEvent = (kind: string, number: number, more: number | string) => {
        if (kind === 'row') onRow?.(JSON.parse(more as string) as BenchRow);
        else if (kind === 'test') [test, told] = [more as string, -1];
        else if (test && number !== told) onProgress?.({ test, run: (told = number), runs });
        return Boolean(signal?.aborted);
      };
      if (signal?.aborted) throw aborted();
      if (!cpu && !skip.includes('compile')) {
        onEvent('test', 0, 'compile');
        settings.compile_seconds = await this.compile(runs, Math.max(warmUp, 1), (run) => onEvent('run', run, runs));
        // No test runs between this row and the next event of a test.
        test = '';
      }
      const report = await this.session!.bench(JSON.stringify(settings), onEvent);
      if (report === undefined) throw aborted();
      return JSON.parse(report) as BenchReport;
    });
  }

  /** Seconds in which fresh devices compile the kernels, one after the other. `stopped` may end it before each. */
  private async compile(runs: number, warmUp: number, stopped: (run: number) => boolean): Promise<number[]> {
    const samples: number[] = [];
    for (let run = 0; run < warmUp + runs; run++) {
      if (stopped(run)) throw aborted();
      const devices = new Devices();
      try {
        const seconds = await this.session!.compile(await this.device(devices));
        if (seconds !== undefined && run >= warmUp) samples.push(seconds);
      } finally {
        devices.destroy();
      }
    }
    return samples;
  }

  selfCheck({ signal, examples, onResult }: SelfCheckOptions = {}): Promise<OperatorResult[]> {
    return this.guard(async () => {
      const wanted = Boolean(this.offered.subgroups) && !this.options.deny?.includes('subgroups');
      const devices = new Devices();
      try {
        return await checkOperators(await this.device(devices), devices, wanted, signal, onResult, examples);
      } finally {
        devices.destroy();
      }
    });
  }

  async loseDevice(): Promise<void> {
    this.devices.destroy();
  }

  async close(): Promise<void> {
    if (this.state === 'busy') throw new NemoflashError('busy', 'the engine is at work. Stop it first');
    this.release();
    this.state = 'closed';
  }
}

/** Compares every operator with its CPU twin on a device, which this uses up. `most` bounds the examples of each. */
async function checkOperators(
  device: Device,
  devices: Devices,
  subgroups: boolean,
  signal?: AbortSignal,
  onResult?: (result: OperatorResult) => void,
  most = 4,
): Promise<OperatorResult[]> {
  const results: OperatorResult[] = [];
  const check = new SelfCheck(device, most);
  try {
    while (check.left() > 0) {
      if (signal?.aborted) throw aborted();
      const begun = now();
      // After an error of an operator, the check opens another device.
      const json = await devices.during(subgroups, () => check.next());
      const result = { ...(JSON.parse(json!) as OperatorResult), seconds: now() - begun };
      results.push(result);
      onResult?.(result);
      await pause();
    }
  } finally {
    free(check);
  }
  return results;
}
