// A static server for tests, which can misbehave on purpose: `faults` maps a file's name to what is wrong with it.
import { createReadStream, existsSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { extname, join, normalize } from 'node:path';

const TYPES = {
  '.html': 'text/html', '.js': 'text/javascript', '.mjs': 'text/javascript', '.css': 'text/css', '.json': 'application/json',
  '.wasm': 'application/wasm', '.svg': 'image/svg+xml', '.webmanifest': 'application/manifest+json',
};

/**
 * Serves folders: `{ '/': dir, '/models/': dir }`, the longest prefix first. Returns `{ url, faults, requests, close }`.
 * Faults, one or several words: `drop` (every answer ends after 3 MiB), `hold` (an answer stands still after 9 MiB),
 * `lie` (a length that is not the file's), `no-range` (200 instead of 206), `html` (a page instead of the file),
 * `altered` (one byte is wrong), `gone` (404), `busy` (503), `cut` (no byte of it), `etag` (another version each time).
 */
export async function serve(folders) {
  const faults = new Map();
  const requests = [];
  const prefixes = Object.keys(folders).sort((a, b) => b.length - a.length);
  const server = createServer((request, response) => {
    const path = normalize(decodeURIComponent(new URL(request.url, 'http://x').pathname));
    const prefix = prefixes.find((prefix) => path.startsWith(prefix));
    let file = join(folders[prefix], path.slice(prefix.length));
    if (existsSync(file) && statSync(file).isDirectory()) file = join(file, 'index.html');
    const words = (faults.get(path.split('/').pop()) ?? '').split(' ');
    const is = (fault) => words.includes(fault);
    requests.push({ path, range: request.headers.range ?? null });
    if (is('html')) return void response.writeHead(200, { 'content-type': 'text/html' }).end('<h1>Sign in</h1>');
    if (is('gone') || !existsSync(file)) return void response.writeHead(404).end('not found');
    if (is('busy')) return void response.writeHead(503).end('later');
    const { size } = statSync(file);
    const headers = { 'content-type': TYPES[extname(file)] ?? 'application/octet-stream', 'accept-ranges': 'bytes' };
    headers.etag = is('etag') ? `"${requests.length}"` : `"${size}"`;
    const range = !is('no-range') && /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '');
    const [start, end] = range ? [Number(range[1]), range[2] ? Number(range[2]) : size - 1] : [0, size - 1];
    const more = is('lie') ? 1000 : 0;
    if (range) headers['content-range'] = `bytes ${start}-${end + more}/${size + more}`;
    headers['content-length'] = end - start + 1 + more;
    response.writeHead(range ? 206 : 200, headers);
    if (is('cut')) return void response.write('', () => response.destroy());
    const stream = createReadStream(file, { start, end });
    let sent = 0;
    stream.on('data', (chunk) => {
      if (is('altered') && start === 0 && sent === 0) chunk[chunk.length - 1] ^= 1;
      sent += chunk.length;
      const room = response.write(chunk);
      if (is('hold') && sent > 9 << 20) return void stream.pause();
      if (!room) {
        stream.pause();
        response.once('drain', () => stream.resume());
      }
      if (is('drop') && sent > 3 << 20) {
        stream.destroy();
        response.destroy();
      }
    });
    stream.on('end', () => (is('lie') ? response.destroy() : response.end()));
    response.on('close', () => stream.destroy());
  });
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  const url = `http://localhost:${server.address().port}/`;
  const close = () => (server.closeAllConnections(), new Promise((done) => server.close(done)));
  return { url, faults, requests, close };
}
