// The benchmark panel. Its tests and its file are those of `nemoflash bench`.

import type { BenchOptions, BenchReport, BenchRow, BenchSummary, Engine } from 'nemoflash';
import { button, byId, copy, element, show } from './dom.js';
import { showError, type Failure } from './errors.js';

/** The tests that the address chooses, as in `?bench=pp64,tg16,pp8+tg4,d0,d512,b1,r2,w1,no-load`. */
function wanted(): BenchOptions {
  const words = (new URLSearchParams(location.search).get('bench') ?? '').split(',');
  const matches = (form: RegExp) => words.flatMap((word) => form.exec(word)?.slice(1) ?? []);
  const numbers = (name: string) => matches(new RegExp(`^${name}(\\d{1,8})$`)).map(Number);
  const lists = { prompt: numbers('pp'), tokens: numbers('tg'), depth: numbers('d'), batch: numbers('b') };
  const [[runs], [warmUp]] = [numbers('r'), numbers('w')];
  // A `+` in an address is read as a space.
  const both = words.flatMap((word) => /^pp(\d{1,8})[ +]tg(\d{1,8})$/.exec(word)?.slice(1).map(Number) ?? []);
  const kinds = ['gate', 'load', 'compile', 'first_token'] as const;
  return {
    ...Object.fromEntries(Object.entries(lists).filter(([, list]) => list.length > 0)),
    ...(runs !== undefined && { runs }),
    ...(warmUp !== undefined && { warmUp }),
    both: Array.from({ length: both.length / 2 }, (_, at) => [both[2 * at]!, both[2 * at + 1]!] as const),
    skip: kinds.filter((kind) => words.includes(`no-${kind}`)),
  };
}

/** For `nemoflash bench --browser`, which opens the page with `?unattended`: measures, and sends each row to the command. */
export async function unattended(begin: () => Promise<Engine>): Promise<void> {
  let last: Promise<unknown> = Promise.resolve();
  const post = (news: { row: BenchRow } | { end: { code: string; message: string } | null }) =>
    (last = last.then(() => fetch('report', { method: 'POST', body: JSON.stringify(news) })));
  try {
    const engine = await begin();
    await engine.bench({ ...wanted(), onRow: (row) => void post({ row }) });
    await post({ end: null });
  } catch (error) {
    const { code = 'unknown', message } = error as Partial<Failure> & Error;
    await post({ end: { code, message } });
  }
}

let stopping: AbortController | null = null;
let rows: BenchRow[] = [];

const digits = (number: number) => number.toLocaleString('en', { maximumSignificantDigits: 3, useGrouping: false });
const figures = ({ time, error }: BenchRow): [string, string] => {
  const [summary, unit]: [BenchSummary | null, string] = time.tokens_per_second ? [time.tokens_per_second, 'tokens/s'] : [time.seconds, 's'];
  if (!summary) return [error ?? 'no result', ''];
  return [`${digits(summary.median)} ${unit}`, time.samples.length > 1 ? `${digits(summary.low)} to ${digits(summary.high)}` : 'one run'];
};

function add(row: BenchRow): void {
  rows.push(row);
  const line = element('tr');
  const [median, interval] = figures(row);
  line.append(element('td', row.test.name), element('td', median, row.error ? 'fail' : ''), element('td', interval));
  byId('bench-table').querySelector('tbody')!.append(line);
  const notes = byId('bench-notes');
  const known = new Set(Array.from(notes.children, (note) => note.textContent));
  for (const warning of row.warnings) {
    const said = `${row.test.name}: ${warning}`;
    if (!known.has(said)) notes.append(element('li', said));
  }
  button('bench-save').disabled = button('bench-copy').disabled = false;
}

/** Empties the panel before another model or another run. */
export function clear(): void {
  stopping?.abort();
  rows = [];
  byId('bench-table').querySelector('tbody')!.replaceChildren();
  byId('bench-notes').replaceChildren();
  byId('bench-summary').textContent = '';
  for (const id of ['bench-table', 'bench-json', 'bench-progress']) show(id, false);
  for (const id of ['bench', 'bench-stop', 'bench-save', 'bench-copy']) button(id).disabled = true;
}

const text = () => JSON.stringify({ schema: 'nemoflash-bench/1', rows } satisfies BenchReport, null, 2);

function save(): void {
  const address = URL.createObjectURL(new Blob([text()], { type: 'application/json' }));
  const link = Object.assign(element('a'), { href: address, download: `nemoflash-bench-${rows[0]!.date.slice(0, 10)}.json` });
  link.click();
  // The browser may read the file later, so its address is kept for a minute.
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

/** Runs the benchmark. `still` says whether the page still uses this engine. */
async function run(engine: Engine, still: () => boolean): Promise<void> {
  clear();
  const own = (stopping = new AbortController());
  const summary = byId('bench-summary');
  const bar = byId<HTMLProgressElement>('bench-progress');
  const others = ['selfcheck', 'generate', 'regenerate'];
  const before = others.map((id) => button(id).disabled);
  for (const id of others) button(id).disabled = true;
  show('bench-table', true);
  show('bench-progress', true);
  bar.removeAttribute('value');
  button('bench-stop').disabled = false;
  button('bench-stop').focus();
  summary.textContent = 'Measuring …';
  let test = '';
  try {
    const { rows: all } = await engine.bench({
      ...wanted(),
      signal: own.signal,
      onRow: (row) => still() && add(row),
      onProgress: ({ test: name, run, runs }) => {
        if (!still()) return;
        bar.value = run / (runs + 1);
        // This text changes only once per test, because a screen reader reads it out.
        if (name !== test) summary.textContent = `Measuring ${(test = name)} …`;
      },
    });
    if (!still()) return;
    const { software, device, gate } = all[0]!;
    const golden = { passed: 'The golden tokens are right.', failed: 'The golden tokens are wrong: do not trust the numbers.', not_run: '' }[gate];
    summary.textContent = `${device.adapter}, ${software.host}. ${golden}`;
  } catch (error) {
    if (!still()) return;
    const failure = error as Failure;
    summary.textContent = failure.code === 'aborted' ? 'Stopped. What was measured is below.' : '';
    if (failure.code !== 'aborted') showError(failure, { retry: () => void run(engine, still) });
  }
  show('bench-progress', false);
  others.forEach((id, i) => (button(id).disabled = before[i]!));
  button('bench').disabled = false;
  if (document.activeElement === button('bench-stop')) button('bench').focus();
  button('bench-stop').disabled = true;
}

/** Makes the panel work for an engine. */
export function offer(engine: Engine, still: () => boolean): void {
  button('bench').onclick = () => void run(engine, still);
  button('bench-stop').onclick = () => stopping?.abort();
  button('bench-save').onclick = save;
  button('bench-copy').onclick = () => void copy(text(), 'bench-json');
  button('bench').disabled = false;
}
