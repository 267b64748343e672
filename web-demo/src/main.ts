import { capabilities, load, type Capabilities, type Engine, type LoadOptions } from 'nemoflash';
import { button, byId, show } from './dom.js';
import { hideError, showError, type Failure } from './errors.js';
import { progress } from './loading.js';
import { chosen, fit, list, ready, source } from './models.js';
import { cached, device, selfCheck } from './panels.js';
import { Writer, newSeed } from './writer.js';

let offered: Capabilities;
let engine: Engine | null = null;
let writer: Writer | null = null;
let loading: AbortController | null = null;

// `?device=gpu` takes a GPU in software too, `?deny=subgroups` does without them: for comparing.
const asked = new URLSearchParams(location.search);

function changed(): void {
  byId('fit').textContent = offered ? fit(chosen(), offered) : '';
  button('load').disabled = loading !== null || !ready(chosen());
}

async function start(on: LoadOptions['device'] = (asked.get('device') as LoadOptions['device']) ?? 'auto'): Promise<void> {
  const model = chosen();
  hideError();
  await engine?.close();
  engine = writer = null;
  show('writer', false);
  byId<HTMLDetailsElement>('choose').open = true;
  loading = new AbortController();
  show('cancel', true);
  changed();
  try {
    const deny = asked.get('deny') === 'subgroups' ? (['subgroups'] as const) : [];
    engine = await load(source(model), { device: on, weights: model.weights, deny, signal: loading.signal, onProgress: progress });
    const info = await engine.info();
    const instruct = info.model.toLowerCase().includes('instruct');
    const format = info.chatTemplate && (model.chat || model.id === 'own') ? 'template' : instruct ? 'instruct' : 'text';
    writer = new Writer(engine, format !== 'text', format, () => void start(on));
    byId<HTMLTextAreaElement>('prompt').value = model.prompt;
    byId('status').textContent = `${info.model} is ready on ${info.device} (${info.loadSeconds.toFixed(1)} s).`;
    show('writer', true);
    byId<HTMLDetailsElement>('choose').open = false;
    button('selfcheck').disabled = false;
    button('generate').focus();
    device(offered, info);
  } catch (error) {
    const failure = error as Failure;
    byId('status').textContent = failure.code === 'aborted' ? 'Stopped. What has come is kept.' : '';
    if (failure.code !== 'aborted') showError(failure, { retry: () => void start(on), ...(on !== 'cpu' && { cpu: () => void start('cpu') }) });
  }
  loading = null;
  show('cancel', false);
  show('progress', false);
  changed();
  await cached();
}

list(changed);
button('load').onclick = () => void start();
button('cancel').onclick = () => loading?.abort();
byId('ask').onsubmit = (event) => {
  event.preventDefault();
  void writer?.ask();
};
byId('prompt').onkeydown = (event) => {
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  void writer?.ask();
};
button('stop').onclick = () => writer?.stop();
button('regenerate').onclick = () => void writer?.regenerate();
button('reset').onclick = () => writer?.reset();
button('new-seed').onclick = newSeed;
button('selfcheck').onclick = () => engine && void selfCheck(engine);
newSeed();

// For trying out what happens when a driver crashes.
if (asked.has('test')) Object.assign(window, { nemoflashTest: { loseDevice: () => engine?.loseDevice() } });

offered = await capabilities();
device(offered, null);
changed();
await cached();
if ('serviceWorker' in navigator) await navigator.serviceWorker.register('sw.js').catch(() => {});
