// Story and chat: prompts in, text out, as text.

import type { Engine, GenerateOptions, Info, Message } from 'nemoflash';
import { button, byId, element, input } from './dom.js';
import { hideError, showError, type Failure } from './errors.js';

/** After the device was lost, it is tried again by itself so often. */
const TRIES = 2;

export class Writer {
  private readonly turns: Message[] = [];
  private stopping: AbortController | null = null;
  private ended = false;

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
    // Also off while the self-check has the engine: Enter must not get past the button.
    if (button('generate').disabled || box.value === '') return;
    if (!this.chat) this.reset();
    // A message without an answer gives way to the next: two in a row are no conversation.
    if (this.turns.at(-1)?.role === 'user') {
      this.turns.pop();
      byId('output').lastElementChild?.remove();
    }
    this.turns.push({ role: 'user', content: box.value });
    this.paragraph('you', box.value);
    if (this.chat) box.value = '';
    await this.answer();
  }

  /** The last answer once more, with another seed. */
  async regenerate(): Promise<void> {
    if (button('generate').disabled || this.turns.length === 0) return;
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

  /** Another model takes the page: what this one still says is nobody's. */
  end(): void {
    this.ended = true;
    this.stop();
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
    button('selfcheck').disabled = button('bench').disabled = on;
    for (const id of ['regenerate', 'reset']) button(id).disabled = on || this.turns.length === 0;
    byId('output').setAttribute('aria-busy', String(on));
  }

  private async answer(tries = TRIES): Promise<void> {
    const box = byId<HTMLTextAreaElement>('prompt');
    hideError();
    const stopping = (this.stopping = new AbortController());
    this.busy(true);
    const place = this.paragraph('answer');
    const text = document.createTextNode('');
    place.append(text);
    const output = byId('output');
    byId('speed').textContent = 'reading …';
    const onPrefill = (done: number, total: number) => {
      if (!this.ended && done < total) byId('speed').textContent = `reading … ${done} of ${total} tokens`;
    };
    let failure: Failure | null = null;
    try {
      const answer = this.engine.generate(this.chat ? [...this.turns] : this.turns[0]!.content, { ...settings(), format: this.format, signal: stopping.signal, onPrefill });
      let shown = 0;
      for await (const chunk of answer) {
        if (this.ended) return;
        text.appendData(chunk.text);
        // Not for every token: layout costs more than a small model's step.
        if (performance.now() - shown < 60) continue;
        shown = performance.now();
        output.scrollTop = output.scrollHeight;
        if (chunk.tokens > 1) byId('speed').textContent = `${((chunk.tokens - 1) / chunk.seconds).toFixed(1)} tokens/s`;
      }
      const usage = await answer.usage;
      if (this.ended) return;
      const rate = (value: number | null) => (value === null ? '' : ` at ${value.toFixed(1)}/s`);
      const ends = { eos: 'the text ended', stop: 'a stop text came', length: 'as long as asked for', context: 'the context is full', aborted: 'stopped' };
      byId('speed').textContent =
        `${usage.ids.length} tokens${rate(usage.decodeTokensPerSecond)}; first after ${usage.firstTokenSeconds.toFixed(2)} s ` +
        `(${usage.prefillTokens} of prompt${rate(usage.prefillTokensPerSecond)}); ${ends[usage.end]}; seed ${input('seed').value}`;
    } catch (error) {
      if (this.ended) return;
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
      if (!this.ended) byId('status').textContent = '';
      return;
    }
    // The same text would not fit again: it goes back into the box, to be made shorter.
    if (failure.code === 'prompt') {
      if (this.chat && box.value === '') box.value = this.turns.at(-1)!.content;
      return showError(failure, {});
    }
    const again = failure.code === 'panic' || failure.code === 'closed' ? this.reload : () => void this.answer();
    showError(failure, { retry: again });
  }
}

/** An empty box is the package's default. */
const number = (id: string) => (input(id).value === '' ? undefined : Number(input(id).value));

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

/** Shows in each empty box what holds for this model. */
export function suggest(defaults: Info['defaults']): void {
  const boxes = {
    temperature: defaults.temperature, 'top-k': defaults.topK, 'top-p': defaults.topP, 'min-p': defaults.minP,
    penalty: defaults.repetitionPenalty, 'max-tokens': defaults.maxTokens,
  };
  for (const [id, value] of Object.entries(boxes)) input(id).placeholder = String(value);
}

export function newSeed(): void {
  input('seed').value = String(crypto.getRandomValues(new Uint32Array(1))[0]);
}
