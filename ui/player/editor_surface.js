// The place to write in: a textarea, which every keyboard and phone knows how to handle, and over it the same text
// set invisibly, whose gaps and words are painted and can be clicked. Both wrap alike because they share font, width
// and wrapping rules.

import { el } from './dom.js';
import { gapsIn, wordsIn } from './editor_text.js';

export class Surface {
  constructor({ id, changed, gap, word, key }) {
    this.on = { gap, word };
    this.area = el('textarea', 'nde-text', { id, spellcheck: 'false', autocapitalize: 'off', autocomplete: 'off', rows: 3 });
    this.area.addEventListener('input', () => changed(this.area.value));
    this.area.addEventListener('keydown', key);
    this.mirror = el('div', 'nde-mirror', { 'aria-hidden': 'true' });
    this.element = el('div', 'nde-surface', {}, el('div', 'nde-stack', {}, this.area, this.mirror));
  }

  get selection() {
    return [this.area.selectionStart, this.area.selectionEnd];
  }

  select(start, end = start) {
    this.area.focus();
    this.area.setSelectionRange(start, end);
  }

  /** Show a text. `tool` is fill or revise; `clickable`: every word can be pinned by a click. */
  show(doc, tool, clickable) {
    if (this.area.value !== doc.text) this.area.value = doc.text;
    const spots = tool === 'fill' ? this.gaps(doc) : this.words(doc, clickable);
    const nodes = [];
    let at = 0;
    for (const { start, end, node } of spots) {
      nodes.push(doc.text.slice(at, start), node);
      node.textContent = doc.text.slice(start, end);
      at = end;
    }
    // A last empty line needs something on it to have a height.
    this.mirror.replaceChildren(...nodes, doc.text.slice(at) + '\u200b');
  }

  gaps(doc) {
    return gapsIn(doc.text, doc.marks).map((gap, index) => {
      const title = gap.was ? `Put “${gap.was}” back` : 'Remove this gap';
      return { ...gap, node: el('span', 'nde-gap', { title, onclick: () => this.on.gap(index) }) };
    });
  }

  words(doc, clickable) {
    const held = (word) => doc.marks.some((mark) => mark.start < word.end && mark.end > word.start);
    return wordsIn(doc.text).filter((word) => clickable || held(word)).map((word) => {
      const node = el('span', `nde-word${held(word) ? ' nde-pinned' : ''}`);
      if (clickable) {
        node.classList.add('nde-clickable');
        node.title = held(word) ? 'Let this word change' : 'Pin this word';
        node.addEventListener('click', () => this.on.word(word));
      }
      return { ...word, node };
    });
  }
}
