// Helpers for the page's elements. They insert text only as text, never as markup.

export const byId = <T extends HTMLElement = HTMLElement>(id: string): T => {
  const found = document.getElementById(id);
  if (!found) throw new Error(`#${id} is missing`);
  return found as T;
};

export const button = (id: string) => byId<HTMLButtonElement>(id);
export const input = (id: string) => byId<HTMLInputElement>(id);

/** An element with text in it. */
export function element<K extends keyof HTMLElementTagNameMap>(tag: K, text = '', className = ''): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

export function show(id: string, visible: boolean): void {
  byId(id).hidden = !visible;
}

export function bytes(count: number): string {
  const units = ['B', 'kB', 'MB', 'GB'];
  const power = Math.min(Math.floor(Math.log10(Math.max(count, 1)) / 3), 3);
  return `${(count / 1000 ** power).toFixed(power < 2 ? 0 : 1)} ${units[power]}`;
}

/** Copies a text into the clipboard. If that is not permitted, shows it in a box from which it can be copied by hand. */
export async function copy(text: string, boxId: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
    byId('status').textContent = 'Copied to the clipboard.';
  } catch {
    const box = byId<HTMLTextAreaElement>(boxId);
    box.value = text;
    show(boxId, true);
    box.select();
  }
}
