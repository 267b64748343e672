// A static server for tests, which can misbehave on purpose: `faults` maps a file's name to what is wrong with it.
import { createReadStream, existsSync, readFileSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { extname, join, normalize } from 'node:path';

const TYPES = {
  '.html': 'text/html', '.js': 'text/javascript', '.mjs': 'text/javascript', '.css': 'text/css', '.json': 'application/json',
  '.wasm': 'application/wasm', '.svg': 'image/svg+xml', '.webmanifest': 'application/manifest+json',
};

/**
 * Serves folders: `{ '/': dir, '/models/': dir }`, the longest prefix first. Returns `{ url, faults, requests, close }`.
 * Faults: `drop` (every answer ends after 3 MiB), `lie` (a length that is not the file's), `no-range` (200 instead of 206),
 * `html` (a page instead of the file), `altered` (one byte is wrong), `gone` (404), `etag` (another version each time).
 */
export async function serve(folders) {
  const faults = new Map();
  const requests = [];
  const prefixes = Object.keys(folders).sort((a, b) => b.length - a.length);
  const server = createServer((request, response) => {
    const path = normalize(decodeURIComponent(new URL(request.url, 'http://x').pathname));
    const prefix = prefixes.find((prefix) => path.startsWith(prefix));
    const made = typeof folders[prefix] === 'function' && folders[prefix](path);
    let file = made ? path : join(folders[prefix], path.slice(prefix.length));
    if (!made && existsSync(file) && statSync(file).isDirectory()) file = join(file, 'index.html');
    const name = path.split('/').pop();
    const fault = faults.get(name);
    requests.push({ path, range: request.headers.range ?? null, host: request.headers.host });
    if (fault === 'html') return void response.writeHead(200, { 'content-type': 'text/html' }).end('<h1>Sign in</h1>');
    if (fault === 'gone' || (!made && !existsSync(file))) return void response.writeHead(404).end('not found');
    const size = made ? made.size : statSync(file).size;
    const headers = { 'content-type': TYPES[extname(file)] ?? 'application/octet-stream', 'accept-ranges': 'bytes' };
    headers.etag = fault === 'etag' ? `"${requests.length}"` : `"${size}"`;
    const range = fault !== 'no-range' && /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '');
    const [start, end] = range ? [Number(range[1]), range[2] ? Number(range[2]) : size - 1] : [0, size - 1];
    const total = fault === 'lie' ? size + 1000 : size;
    if (range) headers['content-range'] = `bytes ${start}-${fault === 'lie' ? end + 1000 : end}/${total}`;
    headers['content-length'] = end - start + 1 + (fault === 'lie' ? 1000 : 0);
    response.writeHead(range ? 206 : 200, headers);
    const stream = made ? made.read(start, end) : createReadStream(file, { start, end });
    let sent = 0;
    stream.on('data', (chunk) => {
      if (fault === 'altered' && start === 0 && sent === 0) chunk[chunk.length - 1] ^= 0xff;
      sent += chunk.length;
      if (!response.write(chunk)) {
        stream.pause();
        response.once('drain', () => stream.resume());
      }
      if (fault === 'drop' && sent > 3 << 20) {
        stream.destroy();
        response.destroy();
      }
    });
    stream.on('end', () => (fault === 'lie' ? response.destroy() : response.end()));
    response.on('close', () => stream.destroy());
  });
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  const url = `http://localhost:${server.address().port}/`;
  const close = () => (server.closeAllConnections(), new Promise((done) => server.close(done)));
  return { url, faults, requests, close };
}

export const text = (path) => readFileSync(path, 'utf8');
