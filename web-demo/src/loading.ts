// The one progress bar.

import type { Progress } from 'nemoflash';
import { byId, bytes, show } from './dom.js';

const STAGES: Record<Progress['stage'], string> = {
  device: 'Opening the GPU',
  files: 'Reading what the model is',
  weights: 'Loading weights',
  compile: 'Compiling shaders',
  ready: 'Ready',
};
const notices = new Set<string>();

export function progress({ stage, done, total, rate, cached, fetched, notice }: Progress): void {
  const bar = byId<HTMLProgressElement>('progress');
  show('progress', stage !== 'ready');
  if (total > 0) bar.value = done / total;
  else bar.removeAttribute('value');
  if (notice) notices.add(notice);
  let text = STAGES[stage];
  if (stage === 'weights' && total > 0) {
    const left = rate > 0 ? (total - done) / rate : 0;
    const from = cached > fetched ? 'from storage, ' : '';
    text += `: ${bytes(done)} of ${bytes(total)} (${from}${bytes(rate)}/s${left > 1 ? `, ${duration(left)} left` : ''})`;
  }
  byId('status').textContent = [text, ...notices].join('. ');
}

function duration(seconds: number): string {
  return seconds < 90 ? `${Math.ceil(seconds)} s` : `${Math.ceil(seconds / 60)} min`;
}
