// The files of a model and where they are, for every kind of source.

import { NemoflashError } from './errors.js';
import { fetchSmall } from './remote.js';
import type { Source } from './types.js';

const HUB = 'https://huggingface.co';
export const SMALL = [
  'config.json',
  'tokenizer.json',
  'generation_config.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'chat_template.jinja',
  'chat_template.json',
] as const;
const NEEDED = ['config.json', 'tokenizer.json'];
const WEIGHTS = 'model.safetensors';
const INDEX = 'model.safetensors.index.json';

/** A file of weights. */
export interface WeightFile {
  name: string;
  url?: string;
  blob?: Blob;
  /** Length and checksum, if the hub states them. */
  length?: number;
  sha256?: string;
}

/** A model's files. */
export interface Files {
  name: string;
  /** A text that distinguishes the model from all others. */
  place: string;
  /** Reads a small file by its name. Null if the model lacks this file and may lack it. */
  small: (name: string) => Promise<Uint8Array | null>;
  /** The weight files. `indexFiles` reads the list of files from the index of a model in several files. */
  weights: (indexFiles: (json: Uint8Array) => string[]) => Promise<WeightFile[]>;
}

const missing = (name: string, where: string) =>
  new NemoflashError('files', `${name} is missing in ${where}. A model's folder holds config.json, tokenizer.json and ` +
    'model.safetensors, or model.safetensors.index.json with its parts');

/** A part of an address, decoded so that it can be read. */
function readable(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Whether a text is the id of a model on the hub: owner and name, with one slash. Every other text is an address. */
const isId = (text: string) => /^[\w.-]+\/[\w.-]+$/.test(text) && !text.startsWith('.');

/** Makes the addresses of a source absolute. Relative ones refer to the page, and a worker would resolve them differently. */
export function absolute(source: Source): Source {
  const base = globalThis.document?.baseURI ?? globalThis.location?.href;
  const address = (text: string) => {
    if (URL.canParse(text, base)) return new URL(text, base).href;
    throw new NemoflashError('parameter', `${text} is not an address. Give the URL of a model's folder, or owner/name on the hub`);
  };
  if (typeof source === 'string') return isId(source) ? source : address(source);
  return 'hub' in source && source.endpoint !== undefined ? { ...source, endpoint: address(source.endpoint) } : source;
}

/** The files of a source, whose addresses must be absolute. */
export function filesOf(source: Source, signal?: AbortSignal): Files {
  if (typeof source === 'object' && 'files' in source) return folder(source.files, source.name);
  if (typeof source === 'object') return hub(source, signal);
  return isId(source) ? hub({ hub: source }, signal) : site(source, signal);
}

function folder(files: readonly File[], name?: string): Files {
  const find = (wanted: string) => files.find((file) => file.name === wanted);
  const path = files[0]?.webkitRelativePath ?? '';
  const title = name ?? (path.includes('/') ? path.split('/')[0]! : 'own model');
  const bytes = async (file: File) => new Uint8Array(await file.arrayBuffer());
  return {
    name: title,
    place: `files:${title}`,
    small: async (wanted) => {
      const file = find(wanted);
      if (!file && NEEDED.includes(wanted)) throw missing(wanted, title);
      return file ? bytes(file) : null;
    },
    weights: async (indexFiles) => {
      const [whole, index] = [find(WEIGHTS), find(INDEX)];
      if (!whole && !index) throw missing(WEIGHTS, title);
      const names = whole ? [WEIGHTS] : indexFiles(await bytes(index!));
      return names.map((wanted) => {
        const blob = find(wanted);
        if (!blob) throw missing(wanted, title);
        return { name: wanted, blob, length: blob.size };
      });
    },
  };
}

function site(url: string, signal?: AbortSignal): Files {
  const base = new URL(url.endsWith('/') ? url : `${url}/`);
  const name = readable(base.pathname.split('/').filter(Boolean).pop() ?? base.host);
  const at = (file: string) => new URL(file, base).href;
  return {
    name,
    place: base.href,
    small: async (wanted) => {
      const bytes = await fetchSmall(at(wanted), signal);
      if (!bytes && NEEDED.includes(wanted)) throw missing(wanted, base.href);
      return bytes;
    },
    weights: async (indexFiles) => {
      const index = await fetchSmall(at(INDEX), signal);
      return (index ? indexFiles(index) : [WEIGHTS]).map((wanted) => ({ name: wanted, url: at(wanted) }));
    },
  };
}

interface Listing {
  sha?: string;
  siblings?: { rfilename: string; size?: number; lfs?: { sha256?: string; size?: number } }[];
}

function hub({ hub: id, revision = 'main', endpoint = HUB }: Extract<Source, { hub: string }>, signal?: AbortSignal): Files {
  const base = endpoint.replace(/\/+$/, '');
  // One request gives every file's name, length and checksum, and the commit from which all files are then read.
  let listing: Promise<Listing> | null = null;
  const list = () =>
    (listing ??= (async () => {
      // Without a login, the hub answers 401 also for a model that does not exist.
      const bytes = await fetchSmall(`${base}/api/models/${id}/revision/${encodeURIComponent(revision)}?blobs=true`, signal, [401, 404]);
      if (!bytes) throw new NemoflashError('files', `${id} (${revision}) is not on the hub, or not for everyone. Check its name`);
      return JSON.parse(new TextDecoder().decode(bytes)) as Listing;
    })());
  const at = async (file: string) => `${base}/${id}/resolve/${(await list()).sha ?? revision}/${file}`;
  const entry = async (file: string) => (await list()).siblings?.find(({ rfilename }) => rfilename === file);
  return {
    name: id.split('/')[1]!,
    place: `${base}/${id}@${revision}`,
    small: async (wanted) => {
      const bytes = (await entry(wanted)) ? await fetchSmall(await at(wanted), signal) : null;
      if (!bytes && NEEDED.includes(wanted)) throw missing(wanted, id);
      return bytes;
    },
    weights: async (indexFiles) => {
      const whole = await entry(WEIGHTS);
      const index = whole ? null : await fetchSmall(await at(INDEX), signal);
      if (!whole && !index) throw missing(WEIGHTS, id);
      const names = whole ? [WEIGHTS] : indexFiles(index!);
      return Promise.all(
        names.map(async (name) => {
          const known = await entry(name);
          return { name, url: await at(name), length: known?.lfs?.size ?? known?.size, sha256: known?.lfs?.sha256 };
        }),
      );
    },
  };
}
