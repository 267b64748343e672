// The program that runs this code: a browser or Node, with its version.

interface Brand {
  brand: string;
  version: string;
}
interface Hints {
  brands: Brand[];
  platform: string;
  getHighEntropyValues(names: string[]): Promise<{ fullVersionList?: Brand[] }>;
}

/** Its kind, and its name with the version. */
export async function host(): Promise<{ runtime: 'browser' | 'node'; host: string }> {
  const node = (globalThis as { process?: { versions?: { node?: string }; platform: string } }).process;
  if (node?.versions?.node) return { runtime: 'node', host: `Node ${node.versions.node}, ${node.platform}` };
  const { userAgent } = navigator;
  const hints = (navigator as { userAgentData?: Hints }).userAgentData;
  const full = await hints?.getHighEntropyValues(['fullVersionList']).catch(() => null);
  // One of the brands is meaningless on purpose. `Chromium` is also among the brands of browsers that are built from it.
  const brands = (full?.fullVersionList ?? hints?.brands ?? []).filter(({ brand }) => !/not.*brand/i.test(brand));
  const brand = brands.find(({ brand }) => brand !== 'Chromium') ?? brands[0];
  if (hints && brand) return { runtime: 'browser', host: [`${brand.brand} ${brand.version}`, hints.platform].filter(Boolean).join(', ') };
  const [, firefox] = /(Firefox\/[\d.]+)/.exec(userAgent) ?? [];
  const [, safari] = /Version\/([\d.]+).*Safari/.exec(userAgent) ?? [];
  const name = firefox?.replace('/', ' ') ?? (safari && `Safari ${safari}`);
  const [, system] = /\(([^;)]+)/.exec(userAgent) ?? [];
  return { runtime: 'browser', host: name ? [name, system].filter(Boolean).join(', ') : userAgent || 'a browser without a name' };
}
