// The list of keys, opened by `?` and closed by Escape.

import { el } from './dom.js';

const KEYS = [
  ['Space', 'play or pause'],
  ['← →', 'one step back or forward'],
  ['Home End', 'first or last step'],
  ['[ ]', 'slower or faster'],
  ['Tab ↑ ↓', 'into the block; arrows go from cell to cell'],
  ['Enter', 'pin the cell in the inspector'],
  ['1 … 5', 'open or close a panel below; ← → go from tab to tab'],
  ['+ − 0', 'in the map: closer, further, all of it; arrows move, Enter goes there'],
  ['↑ ↓', 'in the attention and cycle panels: row by row'],
  ['n p F', 'in a lesson: next, back, presenter mode'],
  ['Esc', 'release the pin, close this list'],
  ['?', 'this list'],
];

export class Help {
  constructor(closed) {
    this.closed = closed;
    const list = el('dl', '', {}, ...KEYS.map(([key, what]) => el('div', '', {}, el('dt', '', {}, ...key.split(' ').map((k) => el('kbd', '', { text: k }))), el('dd', '', { text: what }))));
    const close = el('button', 'ndp-chip', { type: 'button', text: 'Close', onclick: () => this.toggle(false) });
    this.element = el('section', 'ndp-help', { role: 'dialog', 'aria-label': 'Keyboard shortcuts', hidden: true, tabindex: -1 }, el('h3', '', { text: 'Keyboard' }), list, close);
  }

  get open() {
    return !this.element.hidden;
  }

  toggle(open = !this.open) {
    this.element.hidden = !open;
    if (open) this.element.focus();
    this.closed(open);
  }
}
