// The worker: it calls an engine for the page and sends back its events and results.

import { panic_now } from './pkg/nemoflash.js';
import { typed } from './errors.js';
import { LocalEngine } from './local.js';
import type { Answer, Call, News, Result } from './messages.js';

let engine: LocalEngine | null = null;
const running = new Map<number, AbortController>();
const post = (answer: Answer) => self.postMessage(answer);

async function run(call: Call, signal: AbortSignal, tell: (news: News) => void): Promise<Result> {
  if (call.kind === 'load') {
    const onProgress = (progress: import('./types.js').Progress) => tell({ kind: 'progress', progress });
    engine = await LocalEngine.load(call.source, { ...call.options, signal, onProgress });
    return null;
  }
  switch (call.kind) {
    case 'info':
      return engine!.info();
    case 'generate': {
      const onPrefill = (done: number, total: number) => tell({ kind: 'prefill', done, total });
      const answer = engine!.generate(call.prompt, { ...call.options, signal, onPrefill });
      for await (const chunk of answer) tell({ kind: 'chunk', chunk });
      return answer.usage;
    }
    case 'bench':
      return engine!.bench({
        ...call.options,
        signal,
        onProgress: (progress) => tell({ kind: 'run', progress }),
        onRow: (row) => tell({ kind: 'row', row }),
      });
    case 'selfCheck':
      return engine!.selfCheck({ ...call.options, signal, onResult: (result) => tell({ kind: 'operator', result }) });
    case 'panic':
      panic_now();
      return null;
    case 'loseDevice':
      await engine!.loseDevice();
      return null;
    default:
      await engine?.close();
      return null;
  }
}

self.onmessage = async ({ data }: MessageEvent<Call>) => {
  const { id } = data;
  if (data.kind === 'abort') {
    running.get(id)?.abort();
    return;
  }
  const controller = new AbortController();
  running.set(id, controller);
  try {
    const result = await run(data, controller.signal, (news) => post({ id, ...news }));
    post({ id, kind: 'result', result });
  } catch (thrown) {
    const { code, message } = typed(thrown);
    post({ id, kind: 'error', code, message });
  } finally {
    running.delete(id);
  }
};
