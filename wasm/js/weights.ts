// Reads the weights in pieces: from storage if a piece is stored and intact, or else from the source. Only a few pieces are in
// memory at a time, however large the model is.

import { Sha256 } from './pkg/nemoflash.js';
import { NemoflashError } from './errors.js';
import { RemoteFile } from './remote.js';
import type { WeightFile } from './source.js';
import { PIECE, type ModelStore, type StoredFile } from './store.js';

/** Counts bytes while pieces come. */
export interface Counts {
  fetched: number;
  cached: number;
}

export class Weights {
  length = 0;
  private remote: RemoteFile | null = null;
  private stored: StoredFile | null = null;
  /** The last piece. It is kept because the header and the data behind it are asked for one after the other. */
  private last: { i: number; bytes: Uint8Array } | null = null;
  /** The checksum of the whole file, as long as pieces come in order. */
  private hash: { sum: Sha256; next: number } | null = null;

  constructor(
    private readonly file: WeightFile,
    private readonly counts: Counts,
    private readonly signal: AbortSignal | undefined,
    private readonly onNotice: (text: string) => void,
  ) {}

  /** Finds out the file's length. With a store, opens the stored file. */
  async open(store: ModelStore | null): Promise<void> {
    const { file } = this;
    if (file.blob) {
      this.length = file.blob.size;
      return;
    }
    this.remote = new RemoteFile(file.url!, this.signal, file.length);
    if (store) {
      try {
        this.stored = await store.file(file.name);
      } catch {
        this.onNotice('The model is not kept for the next time: its storage is in use by another tab, or not available.');
      }
    }
    // Without a network, the stored file's journal has the length.
    const head = await this.remote.stat().catch((error: unknown) => {
      if (!this.stored?.journal || this.signal?.aborted) throw error;
      return null;
    });
    this.length = head?.length ?? this.stored!.journal!.length;
    if (head) await this.keep((stored) => stored.begin(file.url!, head.length, head.etag));
    if (file.sha256) this.hash = { sum: new Sha256(), next: 0 };
  }

  /** The piece that contains the byte at `offset`, and the position where the piece begins. */
  async piece(offset: number): Promise<{ start: number; bytes: Uint8Array }> {
    const i = Math.floor(offset / PIECE);
    if (this.last?.i !== i) this.last = { i, bytes: await this.get(i) };
    return { start: i * PIECE, bytes: this.last.bytes };
  }

  private async get(i: number): Promise<Uint8Array> {
    const [start, end] = [i * PIECE, Math.min((i + 1) * PIECE, this.length)];
    if (this.file.blob) return new Uint8Array(await this.file.blob.slice(start, end).arrayBuffer());
    const kept = await this.stored?.piece(i);
    if (kept) {
      this.counts.cached += kept.length;
      await this.check(i, kept);
      return kept;
    }
    const before = this.remote!.fetched;
    const bytes = await this.remote!.read(start, end - start);
    this.counts.fetched += this.remote!.fetched - before;
    await this.check(i, bytes);
    await this.keep((stored) => stored.put(i, bytes));
    return bytes;
  }

  /** Does something with the storage, if there is one. If that fails, the model runs without storage. */
  private async keep(work: (stored: StoredFile) => Promise<void>): Promise<void> {
    try {
      if (this.stored) await work(this.stored);
    } catch (error) {
      this.stored?.close();
      this.stored = null;
      const full = (error as DOMException).name === 'QuotaExceededError';
      const why = full ? "the browser's storage is full" : `storage failed (${(error as Error).message})`;
      this.onNotice(`The model is not kept for the next time: ${why}. It runs from memory.`);
    }
  }

  /** Compares the whole file with the checksum that the hub states. */
  private async check(i: number, bytes: Uint8Array): Promise<void> {
    if (!this.hash || this.hash.next !== i) return;
    this.hash.sum.update(bytes);
    this.hash.next += 1;
    if (this.hash.next < Math.ceil(this.length / PIECE)) return;
    const digest = this.hash.sum.hex();
    this.hash = null;
    if (digest !== this.file.sha256) {
      await this.keep((stored) => stored.reset());
      throw new NemoflashError('download', `${this.file.name}: its checksum is not the one that the hub states. Load it again`);
    }
  }

  get kept(): boolean {
    return this.stored !== null;
  }

  async close(): Promise<void> {
    this.last = null;
    this.hash?.sum.free();
    this.hash = null;
    this.stored?.close();
    this.stored = null;
    await this.remote?.close();
  }
}
