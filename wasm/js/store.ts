// Models in the browser's private file system (OPFS). Each model has a folder. Beside each file of weights lies a journal with
// the SHA-256 of every piece, so that damaged pieces are found when they are read.

import type { CachedModel } from './types.js';

/** Bytes of a piece. At most so much is lost when a tab is closed, and so much is downloaded again if a byte is wrong. */
export const PIECE = 8 << 20;

export interface Journal {
  url: string;
  length: number;
  etag: string | null;
  /** SHA-256 of each stored piece, in order. */
  pieces: string[];
}

interface Meta {
  name: string;
}

/** A type that TypeScript's library has only for workers. */
interface SyncAccess {
  read(bytes: Uint8Array, options: { at: number }): number;
  write(bytes: Uint8Array, options: { at: number }): number;
  truncate(size: number): void;
  flush(): void;
  close(): void;
}

const FOLDER = 'nemoflash';
const META = 'model.json';
const journalOf = (name: string) => `${name}.pieces`;

export async function sha256(bytes: Uint8Array): Promise<string> {
  const digest = await crypto.subtle.digest('SHA-256', bytes as Uint8Array<ArrayBuffer>);
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** The name of a model's folder. It is readable, and different for each source. */
export async function keyOf(place: string, name: string): Promise<string> {
  const digest = await sha256(new TextEncoder().encode(place));
  return `${name.replace(/[^A-Za-z0-9._-]/g, '_').slice(0, 60)}-${digest.slice(0, 12)}`;
}

async function root(create: boolean): Promise<FileSystemDirectoryHandle> {
  return (await navigator.storage.getDirectory()).getDirectoryHandle(FOLDER, { create });
}

async function text(folder: FileSystemDirectoryHandle, name: string): Promise<string | null> {
  try {
    return await (await (await folder.getFileHandle(name)).getFile()).text();
  } catch {
    return null;
  }
}

async function json<T>(folder: FileSystemDirectoryHandle, name: string): Promise<T | null> {
  try {
    return JSON.parse((await text(folder, name)) ?? 'null') as T | null;
  } catch {
    return null; // cut off by a crash: treated as missing
  }
}

/** Replaces a small file completely or not at all. */
async function put(folder: FileSystemDirectoryHandle, name: string, bytes: Uint8Array | string): Promise<void> {
  const data = typeof bytes === 'string' ? new TextEncoder().encode(bytes) : bytes;
  const stream = await (await folder.getFileHandle(name, { create: true })).createWritable();
  await stream.write(data as Uint8Array<ArrayBuffer>);
  await stream.close();
}

/** The folder of a model. */
export class ModelStore {
  private constructor(private readonly folder: FileSystemDirectoryHandle) {}

  static async open(key: string, name: string): Promise<ModelStore> {
    const folder = await (await root(true)).getDirectoryHandle(key, { create: true });
    if (!(await json<Meta>(folder, META))) await put(folder, META, JSON.stringify({ name }));
    return new ModelStore(folder);
  }

  /** A small file, if it is stored and complete. */
  async small(name: string): Promise<Uint8Array | null> {
    const journal = await json<Journal>(this.folder, journalOf(name));
    const handle = journal && (await this.folder.getFileHandle(name).catch(() => null));
    if (!handle) return null;
    const bytes = new Uint8Array(await (await handle.getFile()).arrayBuffer());
    return (await sha256(bytes)) === journal.pieces[0] ? bytes : null;
  }

  async putSmall(name: string, url: string, bytes: Uint8Array): Promise<void> {
    await put(this.folder, name, bytes);
    const journal: Journal = { url, length: bytes.length, etag: null, pieces: [await sha256(bytes)] };
    await put(this.folder, journalOf(name), JSON.stringify(journal));
  }

  /** A large file and its journal. */
  async file(name: string): Promise<StoredFile> {
    const handle = await this.folder.getFileHandle(name, { create: true });
    const journal = await json<Journal>(this.folder, journalOf(name));
    const valid = journal && Array.isArray(journal.pieces) && journal.length > 0;
    // This fails if another tab has opened the file. Then this tab uses no storage for it.
    const access = await (handle as unknown as { createSyncAccessHandle(): Promise<SyncAccess> }).createSyncAccessHandle();
    const save = (journal: Journal) => put(this.folder, journalOf(name), JSON.stringify(journal));
    return new StoredFile(access, valid ? journal : null, save);
  }
}

/** A large file that is open in a worker. */
export class StoredFile {
  constructor(
    private readonly access: SyncAccess,
    public journal: Journal | null,
    private readonly save: (journal: Journal) => Promise<void>,
  ) {}

  /** Discards everything if the journal belongs to another version of the file. */
  async begin(url: string, length: number, etag: string | null): Promise<void> {
    const old = this.journal;
    const same = old && old.length === length && (!old.etag || !etag || old.etag === etag);
    if (!same) await this.empty({ url, length, etag, pieces: [] });
  }

  /** A piece, if it is stored and its checksum is right. */
  async piece(i: number): Promise<Uint8Array | null> {
    const known = this.journal?.pieces[i];
    if (!known) return null;
    const length = Math.min(PIECE, this.journal!.length - i * PIECE);
    const bytes = new Uint8Array(length);
    const got = this.access.read(bytes, { at: i * PIECE });
    return got === length && (await sha256(bytes)) === known ? bytes : null;
  }

  /** Stores a piece. The data is on the disk before the journal lists the piece. */
  async put(i: number, bytes: Uint8Array): Promise<void> {
    const written = this.access.write(bytes, { at: i * PIECE });
    if (written !== bytes.length) throw new DOMException('the storage is full', 'QuotaExceededError');
    this.access.flush();
    this.journal!.pieces[i] = await sha256(bytes);
    await this.save(this.journal!);
  }

  /** Discards everything, because the stored bytes do not have the file's checksum. */
  async reset(): Promise<void> {
    if (this.journal) await this.empty({ ...this.journal, pieces: [] });
  }

  /** Empties the file. The journal is written first, so that it never lists pieces that are not there. */
  private async empty(journal: Journal): Promise<void> {
    this.journal = journal;
    await this.save(journal);
    this.access.truncate(0);
  }

  close(): void {
    this.access.close();
  }
}

/** The models in the browser's storage. */
export async function cachedModels(): Promise<CachedModel[]> {
  const list: CachedModel[] = [];
  const folder = await root(false).catch(() => null);
  if (!folder) return list;
  for await (const [key, handle] of folder.entries()) {
    if (handle.kind !== 'directory') continue;
    const meta = await json<Meta>(handle as FileSystemDirectoryHandle, META);
    let bytes = 0;
    let complete = true;
    for await (const [name, file] of (handle as FileSystemDirectoryHandle).entries()) {
      if (file.kind !== 'file') continue;
      bytes += (await (file as FileSystemFileHandle).getFile()).size;
      if (!name.endsWith('.safetensors')) continue;
      const journal = await json<Journal>(handle as FileSystemDirectoryHandle, journalOf(name));
      const pieces = journal?.pieces.filter(Boolean).length ?? -1;
      complete &&= journal !== null && pieces === Math.ceil(journal.length / PIECE);
    }
    list.push({ key, name: meta?.name ?? key, bytes, complete });
  }
  return list;
}

/** Removes a model from the browser's storage. */
export async function removeModel(key: string): Promise<void> {
  await (await root(true)).removeEntry(key, { recursive: true });
}
