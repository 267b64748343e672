// Reads a file of a server from any position on. The server is not trusted: it may ignore ranges, stop in the middle, change
// the file, or answer with a web page.

import { NemoflashError, aborted } from './errors.js';

/** Most tries in a row that bring no bytes. Each further try comes after a longer wait. */
const TRIES = 5;
const WAIT_MS = 300;

export interface Head {
  length: number;
  etag: string | null;
}

class DownloadError extends NemoflashError {
  constructor(
    url: string,
    why: string,
    /** Whether the next try may succeed. */
    readonly passing = false,
  ) {
    super('download', `${new URL(url).pathname.split('/').pop()}: ${why}. Try again: what came is kept`);
  }
}
const words = (error: unknown) => (error as Error).message;

export class RemoteFile {
  /** Bytes that came over the network. */
  fetched = 0;
  private head: Head | null = null;
  private reader: ReadableStreamDefaultReader<Uint8Array> | null = null;
  /** The reader's position in the file, and bytes that it gave beyond the last read. */
  private at = 0;
  private rest = new Uint8Array(0);

  constructor(
    readonly url: string,
    private readonly signal: AbortSignal | undefined,
    /** The length that another source, such as the hub's list, states. */
    private readonly promised?: number,
  ) {}

  /** Length and version of the file. The server is asked only once. */
  async stat(): Promise<Head> {
    if (!this.head) await this.open(0);
    return this.head!;
  }

  /** Bytes `start .. start + length`. */
  async read(start: number, length: number): Promise<Uint8Array> {
    const out = new Uint8Array(length);
    let filled = 0;
    let tries = 0;
    while (filled < length) {
      try {
        if (!this.reader || this.at !== start + filled) await this.open(start + filled);
        const bytes = await this.next(length - filled);
        if (!bytes) throw new DownloadError(this.url, 'the server stopped in the middle', true);
        out.set(bytes, filled);
        filled += bytes.length;
        tries = 0;
      } catch (error) {
        await this.close();
        if (this.signal?.aborted) throw aborted();
        if (!(error instanceof DownloadError && error.passing) || ++tries >= TRIES) throw error;
        await new Promise((done) => setTimeout(done, WAIT_MS * 2 ** tries));
      }
    }
    return out;
  }

  async close(): Promise<void> {
    const reader = this.reader;
    this.reader = null;
    this.rest = new Uint8Array(0);
    await reader?.cancel().catch(() => {});
  }

  private async next(most: number): Promise<Uint8Array | null> {
    while (this.rest.length === 0) {
      const { value, done } = await this.reader!.read().catch((error: unknown) => {
        throw new DownloadError(this.url, `the connection broke (${words(error)})`, true);
      });
      if (done) return null;
      this.fetched += value.length;
      this.rest = value as Uint8Array<ArrayBuffer>;
    }
    const bytes = this.rest.subarray(0, most);
    this.rest = this.rest.subarray(bytes.length);
    this.at += bytes.length;
    return bytes;
  }

  /** Opens a stream that begins at `start`. */
  private async open(start: number): Promise<void> {
    await this.close();
    if (this.signal?.aborted) throw aborted();
    let response: Response;
    try {
      // The browser's HTTP cache is bypassed, because it would hold gigabytes a second time.
      response = await fetch(this.url, { headers: { Range: `bytes=${start}-` }, cache: 'no-store', signal: this.signal });
    } catch (error) {
      if (this.signal?.aborted) throw aborted();
      throw new DownloadError(this.url, `the server cannot be reached (${words(error)})`, true);
    }
    const { status, headers } = response;
    const discard = async (why: string, passing = false) => {
      await response.body?.cancel().catch(() => {});
      throw new DownloadError(this.url, why, passing);
    };
    if (status !== 200 && status !== 206) await discard(`the server answers with status ${status}`, status >= 500);
    if (headers.get('content-type')?.includes('text/html')) await discard('the server answers with a page, not with the file');
    let length: number;
    let at = 0;
    if (status === 206) {
      const range = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(headers.get('content-range') ?? '');
      // A server of another origin may hide the range. Then the file's length follows from the length of the answer.
      if (range) {
        at = Number(range[1]);
        length = Number(range[3]);
        if (at !== start) await discard('the server sends another part of the file than was asked for');
      } else {
        at = start;
        length = start + Number(headers.get('content-length') ?? NaN);
      }
    } else {
      // The server ignores ranges, so everything in front of `start` is read and dropped. The length of a compressed answer is
      // not that of the file.
      length = headers.get('content-encoding') ? NaN : Number(headers.get('content-length') ?? NaN);
    }
    if (Number.isNaN(length)) length = this.promised ?? this.head?.length ?? NaN;
    if (Number.isNaN(length)) await discard('the server does not tell its length');
    if (this.promised !== undefined && length !== this.promised) {
      await discard(`it has ${length} bytes on the server, but its length should be ${this.promised}`);
    }
    const etag = headers.get('etag');
    if (this.head && (this.head.length !== length || (etag && this.head.etag && this.head.etag !== etag))) {
      await discard('it changed on the server in the middle of the download');
    }
    this.head ??= { length, etag };
    this.reader = response.body!.getReader();
    this.at = at;
    this.rest = new Uint8Array(0);
    while (this.at < start) {
      if (!(await this.next(start - this.at))) throw new DownloadError(this.url, 'the server stopped in the middle', true);
    }
  }
}

/** Reads a small file. Null if the server answers with a status in `absent`, which means that there is no such file. */
export async function fetchSmall(url: string, signal?: AbortSignal, absent: readonly number[] = [404]): Promise<Uint8Array | null> {
  const MOST = 64 << 20;
  let response: Response;
  try {
    response = await fetch(url, { signal });
  } catch (error) {
    if (signal?.aborted) throw aborted();
    throw new DownloadError(url, `the server cannot be reached (${words(error)})`);
  }
  const missing = absent.includes(response.status) || response.headers.get('content-type')?.includes('text/html');
  if (missing) {
    await response.body?.cancel().catch(() => {});
    return null;
  }
  if (!response.ok) throw new DownloadError(url, `the server answers with status ${response.status}`);
  // The length in the header may be wrong, so the bytes are counted.
  const parts: Uint8Array[] = [];
  let length = 0;
  for (const reader = response.body!.getReader(); ; ) {
    const { value, done } = await reader.read().catch((error: unknown) => {
      if (signal?.aborted) throw aborted();
      throw new DownloadError(url, `the connection broke (${words(error)})`);
    });
    if (done) break;
    length += value.length;
    if (length > MOST) {
      await reader.cancel().catch(() => {});
      throw new DownloadError(url, 'it is longer than any such file');
    }
    parts.push(value);
  }
  const out = new Uint8Array(length);
  parts.reduce((at, part) => (out.set(part, at), at + part.length), 0);
  return out;
}
