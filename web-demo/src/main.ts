import { capabilities, load, type Capabilities, type Engine, type LoadOptions } from 'nemoflash';
import { clear as clearBench, offer as offerBench, unattended } from './bench.js';
import { button, byId, show } from './dom.js';
import { hideError, showError, type Failure } from './errors.js';
import { begin, progress } from './loading.js';
import { choose, chosen, fit, list, ready, smaller, source, type Model } from './models.js';
import { cached, device, selfCheck } from './panels.js';
import { Writer, newSeed, suggest } from './writer.js';

let offered: Capabilities;
let engine: Engine | null = null;
let writer: Writer | null = null;
let loading: AbortController | null = null;

// For comparisons: `?device=gpu` also uses a GPU in software, and `?deny=subgroups` leaves subgroups unused.
const asked = new URLSearchParams(location.search);

function changed(): void {
  const model = chosen();
  button('load').disabled = loading !== null || !ready(model);
  // The user may choose another model before the answer comes.
  if (offered) void fit(model, offered).then((said) => chosen() === model && (byId('fit').textContent = said));
}

type Where = NonNullable<LoadOptions['device']>;
const WHERE = (asked.get('device') as Where | null) ?? 'auto';
const DENY = (['f16', 'subgroups'] as const).filter((feature) => asked.get('deny')?.split(',').includes(feature));

/**
 * Loads a model. It stays the one that was chosen when this began: trying again must not load another one whose licence was not
 * accepted.
 */
async function start(model: Model = chosen(), on: Where = WHERE): Promise<void> {
  if (loading) return;
  const stopping = (loading = new AbortController());
  hideError();
  begin();
  writer?.end();
  const before = engine;
  engine = writer = null;
  clearBench();
  button('selfcheck').disabled = true;
  byId('selfcheck-summary').textContent = '';
  show('selfcheck-table', false);
  show('writer', false);
  byId<HTMLDetailsElement>('choose').open = true;
  show('cancel', true);
  changed();
  try {
    await before?.close();
    const made = (engine = await load(source(model), { device: on, weights: model.weights, deny: DENY, signal: stopping.signal, onProgress: progress }));
    const info = await made.info();
    // A model that the list offers for stories continues texts, even if its files have a chat template.
    const format = model.chat || model.id === 'own' ? info.defaults.format : 'text';
    suggest(info.defaults);
    writer = new Writer(made, format !== 'text', format, () => void start(model, on));
    byId<HTMLTextAreaElement>('prompt').value = model.prompt;
    byId('status').textContent = `${info.model} is ready on ${info.device} (${info.loadSeconds.toFixed(1)} s).`;
    show('writer', true);
    byId<HTMLDetailsElement>('choose').open = false;
    button('selfcheck').disabled = false;
    offerBench(made, () => engine === made);
    button('generate').focus();
    device(offered, info);
  } catch (error) {
    const failure = error as Failure;
    byId('status').textContent = failure.code === 'aborted' ? 'Stopped. What was downloaded is kept.' : '';
    if (failure.code !== 'aborted') showError(failure, waysOn(failure, model, on));
  }
  loading = null;
  show('cancel', false);
  show('progress', false);
  show('loaded', false);
  changed();
  await cached();
}

/** What may help after an error: the CPU if the GPU failed and the model is small, a smaller model if memory is short. */
function waysOn({ code }: Failure, model: Model, on: Where): Parameters<typeof showError>[1] {
  const gpu = ['no_adapter', 'device', 'limit', 'out_of_memory'].includes(code);
  const next = ['limit', 'out_of_memory'].includes(code) ? smaller(model) : undefined;
  return {
    retry: () => void start(model, on),
    ...(gpu && on !== 'cpu' && !model.terms && { cpu: () => void start(model, 'cpu') }),
    ...(next && { smaller: () => (choose(next.id), button('load').disabled ? byId('licence').focus() : button('load').focus()) }),
  };
}

/** The model that is served beside the page, or fables. */
function served(): Promise<Engine> {
  const name = asked.get('model');
  const weights = (asked.get('weights') ?? 'bf16') as NonNullable<LoadOptions['weights']>;
  const number = (name: string) => (asked.has(name) ? { [name]: Number(asked.get(name)) } : {});
  const kv = asked.get('kv') === 'f32' ? 'f32' : 'f16';
  const scan = (['serial', 'chunked'] as const).find((name) => name === asked.get('scan'));
  const from = new URL(name === null ? 'models/fables/' : `model/${encodeURIComponent(name)}/`, document.baseURI).href;
  return load(from, { device: WHERE, weights, deny: DENY, kv, scan, cache: false, ...number('context'), ...number('slots') });
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
  byId<HTMLFormElement>('ask').requestSubmit();
};
button('stop').onclick = () => writer?.stop();
button('regenerate').onclick = () => void writer?.regenerate();
button('reset').onclick = () => writer?.reset();
button('new-seed').onclick = newSeed;
button('selfcheck').onclick = () => {
  const checked = engine;
  if (checked) void selfCheck(checked, () => engine === checked);
};
// The browser cannot show an invalid setting in a closed panel, and a click on the button would do nothing. So this opens the
// panel.
byId('settings').addEventListener('invalid', () => (byId<HTMLDetailsElement>('settings').open = true), true);
newSeed();

// For tests of what happens when a driver crashes.
if (asked.has('test')) Object.assign(window, { nemoflashTest: { loseDevice: () => engine?.loseDevice() } });

if (asked.has('unattended')) void unattended(served);
offered = await capabilities();
device(offered, null);
changed();
await cached();
if ('serviceWorker' in navigator) await navigator.serviceWorker.register('sw.js').catch(() => {});
