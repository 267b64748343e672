// Shows an error: what went wrong, in a plain sentence, and what to do next.

import type { ErrorCode } from 'nemoflash';
import { byId, show } from './dom.js';

const WORDS: Partial<Record<ErrorCode, string>> = {
  no_adapter: 'This browser offers no GPU through WebGPU. A current Chrome, Edge, Safari or Firefox does on most machines; the small model also runs on the CPU.',
  device: 'The GPU stopped working. The model can be loaded again from storage, and the text is kept.',
  limit: 'This GPU is too small for the model. Choose a smaller model, or another device.',
  out_of_memory: "The GPU's memory is full. Close other tabs that use it, or choose a smaller model.",
  config: 'This is not a model that nemoflash knows.',
  checkpoint: "The model's weights are broken or incomplete.",
  tensors: 'The weights do not belong to this config.json.',
  tokenizer: "The model's tokenizer cannot be used.",
  template: "The model's chat template cannot be used.",
  prompt: 'The text does not fit. Write less, or start again with Reset.',
  parameter: 'One of the settings is out of its range.',
  non_finite: 'The model computed something that is not a number. Run the self-check below.',
  download: 'The download failed. What was downloaded is kept, and trying again continues from there.',
  files: 'A file of the model is missing.',
  busy: 'The model is still at work. Wait until it is done, or stop it.',
  closed: 'The model is not loaded any more.',
  panic: 'nemoflash has a bug and stopped. The model can be loaded again.',
};

export interface Failure {
  code: ErrorCode;
  message: string;
}

export function showError({ code, message }: Failure, ways: { retry?: () => void; cpu?: () => void; smaller?: () => void }): void {
  byId('error-text').textContent = WORDS[code] ?? 'Something went wrong.';
  byId('error-detail').textContent = `${code}: ${message}`;
  for (const [id, way] of [['retry', ways.retry], ['run-on-cpu', ways.cpu], ['smaller', ways.smaller]] as const) {
    show(id, way !== undefined);
    byId(id).onclick = () => {
      hideError();
      way?.();
    };
  }
  show('error', true);
}

export const hideError = () => show('error', false);
