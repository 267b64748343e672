// What the suites of the package share: a server and a browser, a fresh origin for each test, golden tokens.
import { statSync } from 'node:fs';
import { after, before } from 'node:test';
import { fileURLToPath } from 'node:url';
import { launch, open } from './browser.mjs';
import { serve } from './server.mjs';

export const root = fileURLToPath(new URL('../..', import.meta.url));
export const WEIGHTS = 'model.safetensors';
export const PIECE = 8 << 20;
export const { size: bytes } = statSync(`${root}models/fables/${WEIGHTS}`);
// What the float64 reference says after "Once upon a time" (tests/golden/fables.safetensors).
export const GOLDEN = [
  15, 273, 541, 282, 525, 279, 263, 659, 273, 352, 15, 360, 44, 397, 262, 1030, 421, 379, 262, 659, 364, 1030, 15, 273,
  311, 569, 659, 384, 360, 845, 15, 2013,
];

/** One server and one browser for the tests of a file. `more` are folders beside the usual ones. */
export function site(more = {}) {
  const site = {};
  before(async () => {
    site.server = await serve({ '/': `${root}tests/web/blank/`, '/nemoflash/': `${root}wasm/dist/`, '/fables/': `${root}models/fables/`,
      '/models/': `${root}models/`, ...more });
    site.browser = await launch();
  });
  after(async () => {
    await site.browser?.close();
    await site.server?.close();
  });
  /** A fresh origin's page. */
  site.fresh = async (run) => {
    const context = await site.browser.newContext();
    site.server.faults.clear();
    site.server.requests.length = 0;
    try {
      const { page } = await open(context, site.server.url);
      return await run(page, context);
    } finally {
      site.server.faults.clear();
      await context.close();
    }
  };
  /** Where each request for weights begins. */
  site.ranges = () =>
    site.server.requests.filter(({ path }) => path.endsWith(WEIGHTS)).map(({ range }) => Number(/^bytes=(\d+)-/.exec(range)?.[1]));
  return site;
}

/** Loads a model (fables, on the CPU) and continues "Once upon a time"; errors come back as data. */
export const tell = (page, { source = '/fables/', tokens = GOLDEN.length, ...options } = {}) =>
  page.evaluate(
    async ({ source, options, tokens }) => {
      const { load } = await import('/nemoflash/index.js');
      const notices = [];
      const stages = [];
      const onProgress = ({ notice, stage }) => (notice && notices.push(notice), stages.at(-1) !== stage && stages.push(stage));
      try {
        const engine = await load(source, { device: 'cpu', ...options, onProgress });
        const answer = engine.generate('Once upon a time', { temperature: 0, maxTokens: tokens });
        let text = '';
        for await (const chunk of answer) text += chunk.text;
        const { ids, end } = await answer.usage;
        const info = await engine.info();
        await engine.close();
        const { cached, device, model, version } = info;
        return { ids, end, text, notices, stages, cached, device, model, version, subgroup: info.caps.subgroup };
      } catch ({ code, message }) {
        return { code, message, notices };
      }
    },
    { source, options, tokens },
  );
