// The progress bar of loading a model.

import type { Progress } from 'nemoflash';
import { byId, bytes, show } from './dom.js';

const STAGES: Record<Progress['stage'], string> = {
  device: 'Opening the GPU',
  files: "Reading the model's small files",
  weights: 'Loading weights',
  compile: 'Compiling shaders',
  ready: 'Ready',
};
const notices = new Set<string>();
let announced: Progress['stage'] | null = null;

/** Removes the notices of the last model before another one is loaded. */
export function begin(): void {
  notices.clear();
  announced = null;
  show('notice', false);
}

export function progress({ stage, done, total, rate, cached, fetched, notice }: Progress): void {
  const bar = byId<HTMLProgressElement>('progress');
  show('progress', stage !== 'ready');
  if (total > 0) bar.value = done / total;
  else bar.removeAttribute('value');
  if (notice) {
    notices.add(notice);
    byId('notice').textContent = [...notices].join(' ');
    show('notice', true);
  }
  // A screen reader reads the stages out. The numbers change all the time, so they are in another element.
  if (stage !== announced) byId('status').textContent = `${STAGES[stage]} …`;
  announced = stage;
  let text = '';
  if (stage === 'weights' && total > 0) {
    const left = rate > 0 ? (total - done) / rate : 0;
    const from = cached > fetched ? 'from storage, ' : '';
    text = `${bytes(done)} of ${bytes(total)} (${from}${bytes(rate)}/s${left > 1 ? `, ${duration(left)} left` : ''})`;
  }
  byId('loaded').textContent = text;
  show('loaded', text !== '');
}

function duration(seconds: number): string {
  return seconds < 90 ? `${Math.ceil(seconds)} s` : `${Math.ceil(seconds / 60)} min`;
}
