// Makes the progress events of everything that happens while a model is loaded.

import type { Progress, Stage } from './types.js';
import type { Counts } from './weights.js';

/** The rate is averaged over this time. */
const WINDOW_MS = 3000;
const EVERY_MS = 50;

export class Meter {
  readonly counts: Counts = { fetched: 0, cached: 0 };
  private now: Progress = { stage: 'device', done: 0, total: 0, fetched: 0, cached: 0, rate: 0, wasmBytes: 0 };
  private marks: { at: number; done: number }[] = [];
  private told = 0;

  constructor(
    private readonly memory: WebAssembly.Memory,
    private readonly tell: (progress: Progress) => void,
  ) {}

  stage(stage: Stage): void {
    this.emit({ stage });
  }

  notice(notice: string): void {
    this.emit({ notice });
    delete this.now.notice;
  }

  weights(done: number, total: number): void {
    const at = performance.now();
    this.marks.push({ at, done });
    while (at - this.marks[0]!.at > WINDOW_MS) this.marks.shift();
    const first = this.marks[0]!;
    const rate = at > first.at ? ((done - first.done) * 1000) / (at - first.at) : 0;
    if (at - this.told > EVERY_MS || done === total) this.emit({ done, total, rate });
  }

  private emit(news: Partial<Progress>): void {
    this.told = performance.now();
    this.now = { ...this.now, ...news, ...this.counts, wasmBytes: this.memory.buffer.byteLength };
    this.tell({ ...this.now });
  }
}
