// An answer as an async iterable. Its pieces may come from an engine in this thread or in a worker.

import type { Chunk, Generation, Usage } from './types.js';

/** A queue from a producer to one consumer. `run` pushes pieces and resolves with the usage. `stop` ends the answer early. */
export function generation(run: (push: (chunk: Chunk) => void) => Promise<Usage>, stop: () => void): Generation {
  const waiting: Chunk[] = [];
  let wake: (() => void) | null = null;
  let over: { error?: unknown } | null = null;
  const ring = () => {
    wake?.();
    wake = null;
  };
  const usage = run((chunk) => {
    waiting.push(chunk);
    ring();
  });
  usage.then(
    () => ((over = {}), ring()),
    (error: unknown) => ((over = { error }), ring()),
  );
  return {
    usage,
    async *[Symbol.asyncIterator]() {
      try {
        for (;;) {
          while (waiting.length > 0) yield waiting.shift()!;
          if (over?.error !== undefined) throw over.error;
          if (over) return;
          await new Promise<void>((done) => (wake = done));
        }
      } finally {
        // A consumer that leaves its loop early wants no more pieces.
        if (!over) stop();
      }
    },
  };
}
