// Finds the stylesheet, and notices when the page changes between light and dark.

import { el } from './dom.js';

// The stylesheets there are; Python gives the page all of them at once (player_component.stylesheet).
export const SHEETS = ['player.css', 'race.css', 'map.css', 'pattern.css', 'cycles.css', 'whatif.css', 'export.css', 'lessons.css', 'editor.css'];

/** Link the stylesheets unless the page has given them already; `ready` is called as each applies. */
export function ensureStyles(element, ready) {
  if (element.closest('.gradio-container')) return;
  // Outside Gradio there is no dark class to follow, so the system's preference decides.
  element.classList.add('ndp-standalone');
  if (document.querySelector('style[data-nemodiff="player"]')) return; // an exported page carries them itself
  const known = new Set([...document.querySelectorAll('link[rel="stylesheet"]')].map((link) => link.href));
  for (const sheet of SHEETS) {
    const href = new URL(`./${sheet}`, import.meta.url).href;
    if (known.has(href)) continue;
    const link = el('link', '', { rel: 'stylesheet', href });
    link.addEventListener('load', ready, { once: true });
    document.head.append(link);
  }
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
