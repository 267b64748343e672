// Story and chat: takes prompts and shows answers.

import type { Engine, GenerateOptions, Info, Message } from 'nemoflash';
import { button, byId, element, input } from './dom.js';
import { hideError, showError, type Failure } from './errors.js';

/** How many times an answer begins again by itself after the device was lost. */
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

  /** Takes the text of the prompt box, and answers it. */
  async ask(): Promise<void> {
    const box = byId<HTMLTextAreaElement>('prompt');
    // The button is also disabled while the self-check uses the engine. Enter must then do nothing, too.
    if (button('generate').disabled || box.value === '') return;
    if (!this.chat) this.reset();
    // A message that got no answer is replaced by the next one, because a conversation cannot have two messages in a row.
    if (this.turns.at(-1)?.role === 'user') {
      this.turns.pop();
      byId('output').lastElementChild?.remove();
    }
    this.turns.push({ role: 'user', content: box.value });
    this.paragraph('you', box.value);
    if (this.chat) box.value = '';
    await this.answer();
  }

  /** Answers the last message again, with another seed. */
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

  /** Ends this writer when another model is loaded. The rest of a running answer is not shown. */
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
        // The text is not shown after every token, because layout takes longer than a step of a small model.
        if (performance.now() - shown < 60) continue;
        shown = performance.now();
        output.scrollTop = output.scrollHeight;
        if (chunk.tokens > 1) byId('speed').textContent = `${((chunk.tokens - 1) / chunk.seconds).toFixed(1)} tokens/s`;
      }
      const usage = await answer.usage;
      if (this.ended) return;
      const rate = (value: number | null) => (value === null ? '' : ` at ${value.toFixed(1)}/s`);
      const ends = { eos: 'the text ended', stop: 'a stop text came', length: 'the limit of tokens is reached', context: 'the context is full', aborted: 'stopped' };
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
      byId('status').textContent = 'The GPU was lost. The model is loaded again from storage, and the answer begins again.';
      await this.answer(tries - 1);
      if (!this.ended) byId('status').textContent = '';
      return;
    }
    // The text does not fit. It goes back into the box, so that the user can shorten it.
    if (failure.code === 'prompt') {
      if (this.chat && box.value === '') box.value = this.turns.at(-1)!.content;
      return showError(failure, {});
    }
    const again = failure.code === 'panic' || failure.code === 'closed' ? this.reload : () => void this.answer();
    showError(failure, { retry: again });
  }
}

/** An empty box means the package's default. */
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

/** Shows this model's defaults in the empty boxes. */
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
