// The panels: what this device is, whether it computes correct results, and which models are stored in this browser.

import { cachedModels, removeModel, version, type Capabilities, type Engine, type Info, type OperatorResult } from 'nemoflash';
import { button, byId, bytes, copy, element, show } from './dom.js';
import { showError, type Failure } from './errors.js';

let checked: OperatorResult[] = [];

export function device(offered: Capabilities, info: Info | null): void {
  const rows: [string, string][] = [];
  const adapter = Object.values(offered.adapter ?? {}).filter(Boolean).join(' ');
  rows.push(['Adapter', offered.webgpu ? `${adapter || 'without a name'}${offered.software ? ' (software)' : ''}` : offered.reason!]);
  if (offered.webgpu) {
    rows.push(['Subgroups', offered.subgroups ? offered.subgroups.join(' to ') : 'none']);
    rows.push(['f16 in shaders', offered.f16 ? 'yes' : 'no']);
    rows.push(['Largest buffer', bytes(offered.limits!.maxBufferSize)]);
    rows.push(['Largest binding', bytes(offered.limits!.maxStorageBufferBindingSize)]);
  }
  if (offered.storage) rows.push(['Storage', `${bytes(offered.storage.usage)} of ${bytes(offered.storage.quota)}`]);
  if (info) {
    const explain = info.explain as { dispatches_per_token: number; device_bytes: Record<string, number>; context: number };
    rows.push(['Runs on', info.device]);
    rows.push(['Dispatches per token', String(explain.dispatches_per_token)]);
    rows.push(['Memory', Object.entries(explain.device_bytes).map(([name, count]) => `${name} ${bytes(count)}`).join(', ')]);
    rows.push(['Context', `${explain.context} tokens`]);
    rows.push(['Loaded in', `${info.loadSeconds.toFixed(2)} s`]);
  }
  byId('device').replaceChildren(...rows.flatMap(([name, value]) => [element('dt', name), element('dd', value)]));
  button('copy-report').onclick = () => void copy(JSON.stringify({ version, capabilities: offered, info, operators: checked }, null, 2), 'report');
}

export async function selfCheck(engine: Engine, still: () => boolean): Promise<void> {
  const body = byId('selfcheck-table').querySelector('tbody')!;
  const summary = byId('selfcheck-summary');
  body.replaceChildren();
  show('selfcheck-table', true);
  const again = button('regenerate').disabled;
  button('selfcheck').disabled = button('bench').disabled = button('generate').disabled = button('regenerate').disabled = true;
  summary.textContent = 'Checking …';
  try {
    const { device } = await engine.info();
    checked = await engine.selfCheck({
      onResult: ({ name, result, worst_ratio, tolerance, faults }) => {
        const row = element('tr');
        const cells = [name, result, tolerance ? worst_ratio.toExponential(1) : 'equal', tolerance ? tolerance.toExponential(0) : 'equal'];
        row.append(...cells.map((text, i) => element('td', text, i === 1 ? result : '')));
        row.firstElementChild!.append(...faults.map((fault) => element('small', fault)));
        body.append(row);
      },
    });
    if (!still()) return;
    const failed = checked.filter(({ result }) => result === 'fail');
    summary.textContent = failed.length === 0
      ? `All ${checked.length} operators give the results of their CPU twins.${device === 'cpu' ? ' But the model runs on the CPU, so the CPU was compared with itself: this says nothing about a GPU.' : ''}`
      : `${failed.length} of ${checked.length} operators are wrong on this device: ${failed.map(({ name }) => name).join(', ')}. Update the browser or the driver, and copy the report above.`;
  } catch (error) {
    summary.textContent = '';
    if (!still()) return;
    showError(error as Failure, { retry: () => void selfCheck(engine, still) });
  }
  button('selfcheck').disabled = button('bench').disabled = button('generate').disabled = false;
  button('regenerate').disabled = again;
}

export async function cached(): Promise<void> {
  const list = await cachedModels().catch(() => []);
  const items = list.map((model) => {
    const item = element('li');
    item.append(element('span', `${model.name}: ${bytes(model.bytes)}${model.complete ? '' : ', not complete'}`));
    const remove = element('button', 'Delete');
    remove.setAttribute('aria-label', `Delete ${model.name}`);
    remove.onclick = async () => {
      await removeModel(model.key).catch(() => {
        byId('status').textContent = `${model.name} is in use: close the tabs that run it.`;
      });
      await cached();
    };
    item.append(remove);
    return item;
  });
  byId('cached').replaceChildren(...(items.length > 0 ? items : [element('li', 'None yet.')]));
}
