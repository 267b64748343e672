// An engine in a worker, as the page sees it.

import { generation } from './channel.js';
import { NemoflashError, type ErrorCode, aborted } from './errors.js';
import type { Answer, Call, News, Request, Result } from './messages.js';
import { absolute } from './source.js';
import type {
  BenchOptions, BenchReport, Engine, GenerateOptions, Generation, Info, LoadOptions, Message, OperatorResult, SelfCheckOptions, Source, Usage,
} from './types.js';

interface Open {
  onNews?: ((news: News) => void) | undefined;
  resolve: (result: Result) => void;
  reject: (error: Error) => void;
}

export class WorkerEngine implements Engine {
  private worker: Worker | null = null;
  private readonly open = new Map<number, Open>();
  private calls = 0;
  private closed = false;

  private constructor(
    private readonly source: Source,
    private readonly options: Omit<LoadOptions, 'signal' | 'onProgress' | 'where'>,
  ) {}

  static async load(source: Source, { signal, onProgress, where: _, ...options }: LoadOptions = {}): Promise<WorkerEngine> {
    const engine = new WorkerEngine(absolute(source), options);
    try {
      await engine.begin(signal, onProgress);
    } catch (error) {
      engine.end(error as Error);
      throw error;
    }
    return engine;
  }

  private begin(signal?: AbortSignal, onProgress?: LoadOptions['onProgress']): Promise<Result> {
    this.worker = new Worker(new URL('./worker.js', import.meta.url), { type: 'module' });
    this.worker.onmessage = ({ data }: MessageEvent<Answer>) => this.take(data);
    this.worker.onerror = (event) => {
      event.preventDefault();
      this.end(new NemoflashError('panic', `the worker stopped (${event.message ?? 'it did not start'}). Load the model again`));
    };
    // A worker that compiles hears no message, so it is terminated. The pieces of weights that are stored already are kept.
    const stop = () => this.end(aborted());
    signal?.addEventListener('abort', stop);
    const request: Request = { kind: 'load', source: this.source, options: this.options };
    const tell = (news: News) => news.kind === 'progress' && onProgress?.(news.progress);
    return this.post(request, signal, tell).finally(() => signal?.removeEventListener('abort', stop));
  }

  private take(answer: Answer): void {
    const call = this.open.get(answer.id);
    if (!call) return;
    if (answer.kind === 'result') {
      this.open.delete(answer.id);
      call.resolve(answer.result);
    } else if (answer.kind === 'error') {
      this.open.delete(answer.id);
      const error = new NemoflashError(answer.code as ErrorCode, answer.message);
      call.reject(error);
      // After a panic, the worker's state is unreliable. The next call starts another worker.
      if (error.code === 'panic') this.end(error);
    } else {
      call.onNews?.(answer);
    }
  }

  /** Ends the worker, and every open call with this error. */
  private end(error: Error): void {
    this.worker?.terminate();
    this.worker = null;
    for (const call of this.open.values()) call.reject(error);
    this.open.clear();
  }

  private post(request: Request, signal?: AbortSignal, onNews?: (news: News) => void): Promise<Result> {
    if (signal?.aborted) return Promise.reject(aborted());
    const id = (this.calls += 1);
    const send = (call: Call) => this.worker?.postMessage(call);
    const stop = () => send({ id, kind: 'abort' });
    signal?.addEventListener('abort', stop);
    return new Promise<Result>((resolve, reject) => {
      this.open.set(id, { onNews, resolve, reject });
      send({ id, ...request });
    }).finally(() => signal?.removeEventListener('abort', stop));
  }

  private async call<T extends Result>(request: Request, signal?: AbortSignal, onNews?: (news: News) => void): Promise<T> {
    if (this.closed) throw new NemoflashError('closed', 'the engine is closed. Load the model again');
    if (!this.worker) await this.begin(signal);
    return (await this.post(request, signal, onNews)) as T;
  }

  info(): Promise<Info> {
    return this.call<Info>({ kind: 'info' });
  }

  generate(prompt: string | readonly Message[], options: GenerateOptions = {}): Generation {
    const { signal, onPrefill, ...plain } = options;
    const own = new AbortController();
    signal?.addEventListener('abort', () => own.abort(), { once: true });
    if (signal?.aborted) own.abort();
    return generation(
      (push) =>
        this.call<Usage>({ kind: 'generate', prompt, options: plain }, own.signal, (news) => {
          if (news.kind === 'chunk') push(news.chunk);
          if (news.kind === 'prefill') onPrefill?.(news.done, news.total);
        }),
      () => own.abort(),
    );
  }

  bench({ signal, onProgress, onRow, ...options }: BenchOptions = {}): Promise<BenchReport> {
    return this.call<BenchReport>({ kind: 'bench', options }, signal, (news) => {
      if (news.kind === 'run') onProgress?.(news.progress);
      if (news.kind === 'row') onRow?.(news.row);
    });
  }

  selfCheck({ signal, onResult, ...options }: SelfCheckOptions = {}): Promise<OperatorResult[]> {
    return this.call<OperatorResult[]>({ kind: 'selfCheck', options }, signal, (news) => news.kind === 'operator' && onResult?.(news.result));
  }

  async loseDevice(): Promise<void> {
    await this.call<null>({ kind: 'loseDevice' });
  }

  async close(): Promise<void> {
    this.closed = true;
    this.end(new NemoflashError('closed', 'the engine was closed'));
  }
}
