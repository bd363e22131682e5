// The gaps of the text as a list: what stood there, how many tokens may stand there now, and the way back.

import { el } from './dom.js';
import { LONGEST } from './editor_text.js';

export class GapList {
  /** `resize(index, shortest, longest)`, `back(index)`. */
  constructor({ resize, back }) {
    this.on = { resize, back };
    this.element = el('ol', 'nde-gaps', { 'aria-label': 'Gaps' });
  }

  show(gaps) {
    const { activeElement } = document;
    const place = this.element.contains(activeElement) ? [...this.element.querySelectorAll('button, input')].indexOf(activeElement) : -1;
    this.element.hidden = gaps.length === 0;
    this.element.replaceChildren(...gaps.map((gap, index) => this.row(gap, index)));
    // The row that was worked on keeps the focus, though it has been made again.
    if (place >= 0) this.element.querySelectorAll('button, input')[place]?.focus();
  }

  row({ shortest, longest, was }, index) {
    const { resize, back } = this.on;
    const name = `gap ${index + 1}`;
    const ranged = shortest < longest;
    const by = (step) => () => resize(index, ranged ? Math.min(shortest, longest + step) : longest + step, longest + step);
    const button = (text, label, onclick, disabled) => el('button', 'nde-small', { type: 'button', text, 'aria-label': label, onclick, disabled });
    const fewer = el('input', '', { type: 'checkbox', checked: ranged, disabled: longest === 1, onchange: () => resize(index, ranged ? longest : 1, longest) });
    return el(
      'li', '', {},
      el('span', 'nde-was', { text: was ? `“${was}”` : 'empty' }),
      el(
        'span', 'nde-length', {},
        button('−', `Shorten ${name}`, by(-1), longest <= 1),
        el('output', '', { text: `${ranged ? `${shortest}–${longest}` : longest} ${longest === 1 ? 'cell' : 'cells'}` }),
        button('+', `Lengthen ${name}`, by(1), longest >= LONGEST),
      ),
      el('label', 'nde-fewer', {}, fewer, 'or fewer'),
      button(was ? 'Put back' : 'Remove', was ? `Put the text of ${name} back` : `Remove ${name}`, () => back(index)),
    );
  }
}
