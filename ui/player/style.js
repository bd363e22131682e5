// Finds the stylesheet, and notices when the page changes between light and dark.

import { el } from './dom.js';

/** Load player.css unless the page has given it already; `ready` is called once it applies. */
export function ensureStyles(element, ready) {
  // Outside Gradio there is no dark class to follow, so the system's preference decides.
  if (!element.closest('.gradio-container')) element.classList.add('ndp-standalone');
  if (getComputedStyle(element).getPropertyValue('--nd-styled').trim()) return;
  const href = new URL('./player.css', import.meta.url).href;
  const known = [...document.querySelectorAll('link[rel="stylesheet"]')].find((link) => link.href === href);
  const link = known ?? el('link', '', { rel: 'stylesheet', href });
  link.addEventListener('load', ready, { once: true });
  if (!known) document.head.append(link);
}

/** Call `changed` when the theme does; returns a function that stops watching. */
export function watchTheme(element, changed) {
  const preference = window.matchMedia('(prefers-color-scheme: dark)');
  const observer = new MutationObserver(changed);
  observer.observe(document.body, { attributes: true, attributeFilter: ['class'] });
  preference.addEventListener('change', changed);
  return () => {
    observer.disconnect();
    preference.removeEventListener('change', changed);
  };
}
