// The recorded run, playing while Gradio is still building the page, in the place where the page's own player will
// stand; as soon as that one has the run, it goes on from the same step. Nothing here waits for Gradio.

import { el } from './dom.js';
import { mount } from './player.js';

const OWN = 'nd-player'; // the page's player
const ID = 'prelude';

/** Show `messages`, the whole run with this id, unless the address asks for something else. `css`: the stylesheets. */
export function begin({ run, messages, css }) {
  const asked = new URLSearchParams(window.location.search);
  if ((asked.get('view') ?? 'refine') !== 'refine' || asked.has('trace')) return;
  const sheet = el('style', '', { 'data-nemodiff': 'player', text: css });
  document.head.append(sheet);
  const place = el('div', 'nd-prelude');
  document.body.append(place);
  const player = mount(place, { id: ID, base: window.location.pathname.replace(/[/]+$/, ''), resync: async () => ({ messages }) });
  const theme = asked.get('__theme');
  if (theme === 'light' || theme === 'dark') place.firstElementChild.style.colorScheme = theme;
  player.open(run);

  const leave = () => {
    player.destroy();
    place.remove();
    sheet.remove();
  };
  const handOver = (own) => {
    own.select({ step: player.selection.step, position: player.selection.position, panel: player.selection.panel });
    if (window.__nemodiff.players[ID].playing) own.play();
    if (place.contains(document.activeElement)) document.querySelector(`#${OWN} .ndp`).focus({ preventScroll: true });
    requestAnimationFrame(() => requestAnimationFrame(leave)); // when the page's player is drawn at that step
  };
  const watch = () => {
    const elsewhere = (document.documentElement.dataset.ndView ?? 'refine') !== 'refine';
    const own = window.__nemodiff.players[OWN];
    if (elsewhere || (own?.run && own.run !== run)) leave();
    else if (own?.complete) handOver(window.__nemodiff.handles[OWN]);
    else {
      const box = document.querySelector(`#${OWN} .ndp`)?.getBoundingClientRect();
      if (box?.width) Object.assign(place.style, { left: `${box.left + window.scrollX}px`, top: `${box.top + window.scrollY}px`, width: `${box.width}px`, right: 'auto' });
      requestAnimationFrame(watch);
    }
  };
  watch();
}
