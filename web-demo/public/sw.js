// Lets the site work without a network. This worker stores the site's own files. It stores no models: the package does that.
// Other sites of this host share the cache storage, so the names of caches say which site they belong to.
const MINE = `nemoflash ${self.registration.scope} `;
const CACHE = `${MINE}VERSION`;
const MODELS = new URL('models/', self.registration.scope).pathname;

// A new worker becomes active only when no page of the old site is open, because such a page still needs the old files.
self.addEventListener('install', (event) => {
  event.waitUntil(
    (async () => {
      const files = await (await fetch('files.json', { cache: 'no-cache' })).json();
      const cache = await caches.open(CACHE);
      await cache.addAll(files.map((file) => new Request(file, { cache: 'no-cache' })));
    })(),
  );
});

self.addEventListener('activate', (event) => {
  event.waitUntil(
    (async () => {
      const old = (await caches.keys()).filter((name) => name.startsWith(MINE) && name !== CACHE);
      await Promise.all(old.map((name) => caches.delete(name)));
      await self.clients.claim();
    })(),
  );
});

self.addEventListener('fetch', (event) => {
  const { request } = event;
  const url = new URL(request.url);
  const own = url.origin === location.origin && request.method === 'GET' && !url.pathname.startsWith(MODELS);
  if (!own) return;
  // The site has one page, whatever the parameters in the address are.
  const key = request.mode === 'navigate' ? self.registration.scope : request;
  event.respondWith(
    (async () => {
      const cache = await caches.open(CACHE);
      const kept = await cache.match(key);
      // Files with a hash in their name never change. All others are fetched again if there is a network.
      if (kept && url.pathname.includes('/assets/')) return kept;
      try {
        const response = await fetch(request);
        if (response.status === 200) await cache.put(key, response.clone());
        return response;
      } catch (error) {
        if (kept) return kept;
        throw error;
      }
    })(),
  );
});
