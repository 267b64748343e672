// The site without a network. Its own files are kept here; models are not: the package keeps those, piece by piece.
const CACHE = 'nemoflash-site-1';

self.addEventListener('install', (event) => {
  event.waitUntil(
    (async () => {
      const files = await (await fetch('files.json', { cache: 'no-cache' })).json();
      const cache = await caches.open(CACHE);
      await cache.addAll(files);
      await self.skipWaiting();
    })(),
  );
});

self.addEventListener('activate', (event) => event.waitUntil(self.clients.claim()));

self.addEventListener('fetch', (event) => {
  const { request } = event;
  const url = new URL(request.url);
  const own = url.origin === location.origin && request.method === 'GET' && !url.pathname.includes('/models/');
  if (!own) return;
  event.respondWith(
    (async () => {
      const cache = await caches.open(CACHE);
      const kept = await cache.match(request, { ignoreSearch: true });
      // Files whose names hold their hash never change; everything else is asked for anew where there is a network.
      if (kept && url.pathname.includes('/assets/')) return kept;
      try {
        const response = await fetch(request);
        if (response.ok && response.status === 200) await cache.put(request, response.clone());
        return response;
      } catch (error) {
        if (kept) return kept;
        throw error;
      }
    })(),
  );
});
