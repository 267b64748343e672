// Chromium without a window, with WebGPU on its software adapter.
import { existsSync } from 'node:fs';
import { chromium } from 'playwright-core';

const PATHS = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];

/** Where it is. */
export function executable() {
  const path = process.env.CHROMIUM ?? PATHS.find(existsSync);
  if (!path) throw new Error('Chromium is missing: set CHROMIUM to its path');
  return path;
}

export function launch(more = []) {
  return chromium.launch({
    executablePath: executable(),
    args: ['--headless', '--no-sandbox', '--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader',
      '--disable-background-networking', ...more],
  });
}

/** A page whose errors are collected: none is expected. */
export async function open(context, url) {
  const page = await context.newPage();
  const errors = [];
  page.on('pageerror', (error) => errors.push(String(error)));
  page.on('console', (message) => message.type() === 'error' && errors.push(message.text()));
  await page.goto(url);
  return { page, errors };
}
