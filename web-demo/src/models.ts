// The list of models, and what the page says about each of them before anything is downloaded.

import { plan, type Capabilities, type LoadOptions, type Source } from 'nemoflash';
import { bytes, byId, element, input, show } from './dom.js';

export interface Model {
  id: string;
  name: string;
  about: string;
  source?: Source;
  weights: NonNullable<LoadOptions['weights']>;
  /** Bytes to download. */
  download: number;
  /** The name of its published shape, from which its memory plan is computed. */
  shape?: string;
  chat: boolean;
  /** Whether the user must accept the licence first. */
  terms: boolean;
  prompt: string;
  /** Address of the page with its licence. */
  card?: string;
}

export const MODELS: Model[] = [
  {
    id: 'fables',
    name: 'fables',
    about: 'A small storyteller of 6.7 million parameters that uses every operator of the family. 13 MB, part of this site. MIT or Apache-2.0; trained on public-domain fairy tales.',
    source: new URL('models/fables/', document.baseURI).href,
    weights: 'bf16',
    download: 13.7e6,
    chat: false,
    terms: false,
    prompt: 'Once upon a time',
  },
  {
    id: 'flash-1b',
    name: 'Nemotron-Flash 1B',
    about: 'A base model: it continues a text and does not chat. 1.9 GB of download, about 0.6 GB on the GPU (4 bits, quantised while it streams in). CC-BY-NC-4.0: not for commercial use.',
    source: { hub: 'nvidia/Nemotron-Flash-1B' },
    card: 'https://huggingface.co/nvidia/Nemotron-Flash-1B',
    weights: 'q4',
    download: 1.94e9,
    shape: 'nemotron-flash-1b',
    chat: false,
    terms: true,
    prompt: 'The most surprising thing about the deep sea is',
  },
  {
    id: 'flash-3b',
    name: 'Nemotron-Flash 3B Instruct',
    about: 'Answers questions. 5.5 GB of download, about 1.7 GB on the GPU (4 bits, quantised while it streams in). CC-BY-NC-4.0: not for commercial use.',
    source: { hub: 'nvidia/Nemotron-Flash-3B-Instruct' },
    card: 'https://huggingface.co/nvidia/Nemotron-Flash-3B-Instruct',
    weights: 'q4',
    download: 5.5e9,
    shape: 'nemotron-flash-3b',
    chat: true,
    terms: true,
    prompt: 'Why is the sky blue?',
  },
  {
    id: 'own',
    name: 'A folder of your own',
    about: 'Nemotron-Flash or Qwen3 with config.json, tokenizer.json and *.safetensors. It stays on this machine.',
    weights: 'bf16',
    download: 0,
    chat: false,
    terms: false,
    prompt: 'Once upon a time',
  },
];

const OWN = MODELS.at(-1)!;
let own: File[] = [];

export function chosen(): Model {
  const id = document.querySelector<HTMLInputElement>('input[name=model]:checked')?.value;
  return MODELS.find((model) => model.id === id) ?? MODELS[0]!;
}

export function source(model: Model): Source {
  return model.source ?? { files: own };
}

/** Whether this model can be loaded now. */
export function ready(model: Model): boolean {
  return (!model.terms || input('licence').checked) && (model.id !== 'own' || own.length > 0);
}

/** Builds the list. `changed` is called after every choice. */
export function list(changed: () => void): void {
  for (const model of MODELS) {
    const label = element('label', '', 'model');
    const radio = element('input');
    radio.type = 'radio';
    radio.name = 'model';
    radio.value = model.id;
    radio.checked = model === MODELS[0];
    const text = element('span');
    text.append(element('b', model.name), element('small', model.about));
    label.append(radio, text);
    byId('model-list').append(label);
  }
  const turned = () => {
    const { terms, card, id } = chosen();
    // The licence must be accepted for each model anew.
    input('licence').checked = false;
    if (card) byId<HTMLAnchorElement>('card').href = card;
    show('terms', terms);
    show('own', id === 'own');
    changed();
  };
  byId('model-list').addEventListener('change', turned);
  input('licence').addEventListener('change', changed);
  input('folder').addEventListener('change', () => {
    own = [...(input('folder').files ?? [])];
    changed();
  });
  byId('weights').addEventListener('change', () => (OWN.weights = byId<HTMLSelectElement>('weights').value as Model['weights']));
  drop(turned);
}

/** Chooses a model, as a click would. */
export function choose(id: string): void {
  const radio = document.querySelector<HTMLInputElement>(`input[name=model][value=${id}]`)!;
  radio.checked = true;
  radio.dispatchEvent(new Event('change', { bubbles: true }));
}

/** The next smaller model of the list. */
export function smaller(model: Model): Model | undefined {
  return MODELS.filter(({ download }) => download > 0 && (model.download === 0 || download < model.download)).at(model.download === 0 ? 0 : -1);
}

/** Lets the user drop the files of a model anywhere on the page. */
function drop(turned: () => void): void {
  const over = (on: boolean) => document.body.classList.toggle('dropping', on);
  document.addEventListener('dragover', (event) => (event.preventDefault(), over(true)));
  document.addEventListener('dragleave', () => over(false));
  document.addEventListener('drop', async (event) => {
    event.preventDefault();
    over(false);
    const entries = [...(event.dataTransfer?.items ?? [])].map((item) => item.webkitGetAsEntry()).filter((e) => e !== null);
    const files = (await Promise.all(entries.map(filesIn))).flat();
    if (files.length === 0) return;
    own = files;
    document.querySelector<HTMLInputElement>('input[name=model][value=own]')!.checked = true;
    turned();
  });
}

async function filesIn(entry: FileSystemEntry): Promise<File[]> {
  if (entry.isFile) return [await new Promise<File>((done, failed) => (entry as FileSystemFileEntry).file(done, failed))];
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  const inside: FileSystemEntry[] = [];
  // A browser gives the entries of a folder in portions. An empty portion is the end.
  for (let more; (more = await new Promise<FileSystemEntry[]>((done, failed) => reader.readEntries(done, failed))).length > 0; ) inside.push(...more);
  return (await Promise.all(inside.filter((e) => e.isFile).map(filesIn))).flat();
}

/** Says how much memory of this GPU a model takes, or why it cannot run here. Empty if that is small or unknown. */
async function memory(model: Model): Promise<string> {
  const config = own.find(({ name }) => name === 'config.json');
  const shape = model.id === 'own' && config ? new Uint8Array(await config.arrayBuffer()) : model.shape;
  if (!shape) return '';
  try {
    const { weights, arena, scratch, context } = await plan(shape, { weights: model.weights });
    return `On this GPU it takes ${bytes(weights)} for weights, ${bytes(arena)} for a text of ${context} tokens and ${bytes(scratch)} for intermediate results. No single buffer is too large. Only loading shows whether so much memory is free.`;
  } catch (error) {
    return `It cannot run on this GPU: ${(error as Error).message}`;
  }
}

/** Says whether and how a model would run on this machine, before it is loaded. */
export async function fit(model: Model, offered: Capabilities): Promise<string> {
  const said: string[] = [];
  if (model.id === 'own' && own.length > 0) said.push(`${own.length} files chosen.`);
  const room = offered.storage ? offered.storage.quota - offered.storage.usage : 0;
  if (room > 0 && room < model.download) {
    said.push(`This browser keeps at most ${bytes(room)} more: the model would be downloaded again the next time.`);
  }
  const large = model.terms ? ', and this model is too large for it' : '';
  if (!offered.webgpu) said.push(`No GPU here (${offered.reason}): the CPU runs the model${large}.`);
  else if (offered.software) said.push(`The only GPU here is software, so the CPU runs the model${large}.`);
  else said.push(await memory(model));
  return said.filter(Boolean).join(' ');
}
