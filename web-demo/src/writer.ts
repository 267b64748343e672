// Story and chat: prompts in, text out, as text.

import type { Engine, GenerateOptions, Message } from 'nemoflash';
import { button, byId, element, input } from './dom.js';
import { hideError, showError, type Failure } from './errors.js';

/** After the device was lost, it is tried again by itself so often. */
const TRIES = 2;

export class Writer {
  private readonly turns: Message[] = [];
  private stopping: AbortController | null = null;

  constructor(
    private readonly engine: Engine,
    private readonly chat: boolean,
    private readonly format: GenerateOptions['format'],
    private readonly reload: () => void,
  ) {
    byId('writer').className = chat ? 'chat' : 'story';
    byId('prompt-label').textContent = chat ? 'Your message' : 'How does it begin?';
    button('generate').textContent = chat ? 'Send' : 'Write a story';
    this.reset();
  }

  /** The prompt box, and an answer to it. */
  async ask(): Promise<void> {
    const box = byId<HTMLTextAreaElement>('prompt');
    if (this.stopping || box.value === '') return;
    if (!this.chat) this.reset();
    this.turns.push({ role: 'user', content: box.value });
    this.paragraph('you', box.value);
    if (this.chat) box.value = '';
    await this.answer();
  }

  /** The last answer once more, with another seed. */
  async regenerate(): Promise<void> {
    if (this.stopping || this.turns.length === 0) return;
    if (this.turns.at(-1)!.role === 'assistant') {
      this.turns.pop();
      byId('output').lastElementChild?.remove();
    }
    newSeed();
    await this.answer();
  }

  stop(): void {
    this.stopping?.abort();
  }

  reset(): void {
    this.stop();
    this.turns.length = 0;
    byId('output').replaceChildren();
    byId('speed').textContent = '';
    this.busy(false);
  }

  private paragraph(who: 'you' | 'answer', text = ''): HTMLElement {
    const made = element('p', text, who);
    byId('output').append(made);
    return made;
  }

  private busy(on: boolean): void {
    button('generate').disabled = on;
    button('stop').disabled = !on;
    button('selfcheck').disabled = on;
    for (const id of ['regenerate', 'reset']) button(id).disabled = on || this.turns.length === 0;
    byId('output').setAttribute('aria-busy', String(on));
  }

  private async answer(tries = TRIES): Promise<void> {
    hideError();
    const stopping = (this.stopping = new AbortController());
    this.busy(true);
    const place = this.paragraph('answer');
    const text = document.createTextNode('');
    place.append(text);
    const output = byId('output');
    byId('speed').textContent = 'reading …';
    let failure: Failure | null = null;
    try {
      const answer = this.engine.generate(this.chat ? [...this.turns] : this.turns[0]!.content, { ...settings(), format: this.format, signal: stopping.signal });
      let shown = 0;
      for await (const chunk of answer) {
        text.appendData(chunk.text);
        // Not for every token: layout costs more than a small model's step.
        if (performance.now() - shown < 60) continue;
        shown = performance.now();
        output.scrollTop = output.scrollHeight;
        if (chunk.tokens > 1) byId('speed').textContent = `${((chunk.tokens - 1) / chunk.seconds).toFixed(1)} tokens/s`;
      }
      const usage = await answer.usage;
      const rate = (value: number | null) => (value === null ? '' : ` at ${value.toFixed(1)}/s`);
      const ends = { eos: 'the text ended', stop: 'a stop text came', length: 'as long as asked for', context: 'the context is full', aborted: 'stopped' };
      byId('speed').textContent =
        `${usage.ids.length} tokens${rate(usage.decodeTokensPerSecond)}; first after ${usage.firstTokenSeconds.toFixed(2)} s ` +
        `(${usage.prefillTokens} of prompt${rate(usage.prefillTokensPerSecond)}); ${ends[usage.end]}; seed ${input('seed').value}`;
    } catch (error) {
      failure = error as Failure;
    }
    this.stopping = null;
    if (failure === null || failure.code === 'aborted') {
      this.turns.push({ role: 'assistant', content: text.data });
      this.busy(false);
      return;
    }
    place.remove();
    this.busy(false);
    byId('speed').textContent = '';
    if (failure.code === 'device' && tries > 0) {
      byId('status').textContent = 'The GPU was lost. The model comes back from storage, and the answer begins again.';
      await this.answer(tries - 1);
      byId('status').textContent = 'Ready';
      return;
    }
    const again = failure.code === 'panic' || failure.code === 'closed' ? this.reload : () => void this.answer();
    showError(failure, { retry: again });
  }
}

const number = (id: string) => Number(input(id).value);

function settings(): GenerateOptions {
  return {
    temperature: number('temperature'),
    topK: number('top-k'),
    topP: number('top-p'),
    minP: number('min-p'),
    repetitionPenalty: number('penalty'),
    maxTokens: number('max-tokens'),
    seed: number('seed'),
  };
}

export function newSeed(): void {
  input('seed').value = String(crypto.getRandomValues(new Uint32Array(1))[0]);
}
