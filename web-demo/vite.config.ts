import { createHash } from 'node:crypto';
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { defineConfig, type Plugin } from 'vite';

const fables = fileURLToPath(new URL('../models/fables/', import.meta.url));

/** Adds the built-in model to the site, and writes the list of the site's own files for the service worker. */
const site: Plugin = {
  name: 'site',
  generateBundle() {
    for (const fileName of ['config.json', 'tokenizer.json', 'model.safetensors']) {
      this.emitFile({ type: 'asset', fileName: `models/fables/${fileName}`, source: readFileSync(fables + fileName) });
    }
  },
  writeBundle({ dir }) {
    const files = readdirSync(dir!, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
    const names = files.map((entry) => relative(dir!, join(entry.parentPath, entry.name)).replaceAll('\\', '/'));
    const own = names.filter((name) => !/^(sw\.js|files\.json|models\/.*)$/.test(name));
    writeFileSync(join(dir!, 'files.json'), JSON.stringify(['./', ...own]));
    // Every change of the site changes the service worker. The new worker stores the new files and removes the old ones.
    const hash = createHash('sha256');
    for (const name of own.sort()) hash.update(name).update(readFileSync(join(dir!, name)));
    const worker = join(dir!, 'sw.js');
    writeFileSync(worker, readFileSync(worker, 'utf8').replace('VERSION', hash.digest('hex').slice(0, 16)));
  },
};

export default defineConfig({
  // Relative addresses, so that the site works in any folder of any host.
  base: './',
  build: { target: 'es2022', assetsInlineLimit: 0, modulePreload: { polyfill: false } },
  worker: { format: 'es' },
  plugins: [site],
});
