// The answer for screen readers: the same text as the prose, without its colours. It stands in the page as a whole,
// in parts of one page of cells each, and a part is only written again when its cells have changed.

import { el, setAttr, setText } from './dom.js';
import { pagesIn } from './pages.js';
import { proseText } from './pieces.js';

const MANY = 16; // parts; more of them are not laid out together

export class Heard {
  constructor() {
    this.element = el('div', 'ndp-heard');
    this.parts = []; // {node, key}
  }

  /** The output of `lane` in `cells`, which has `length` tokens. */
  update({ lane, cells, length }) {
    if (lane !== this.lane) this.clear(lane);
    const end = lane.start + length;
    let used = 0;
    for (const { number, from, to } of pagesIn(lane.start, end)) {
      const part = (this.parts[used] ??= this.add());
      used += 1;
      const last = to === end;
      const key = `${cells.version(number)} ${to} ${last && lane.ended}`;
      if (part.key === key) continue;
      part.key = key;
      const ids = [];
      for (let position = from; position < to; position += 1) ids.push(cells.get(position).token);
      setText(part.node, proseText(last ? lane.text(ids) : ids.map((id) => lane.piece(id)).join('')));
    }
    for (const part of this.parts.splice(used)) part.node.remove();
    setAttr(this.element, 'data-long', used > MANY);
  }

  add() {
    const node = el('span', 'ndp-heard-part');
    this.element.append(node);
    return { node, key: null };
  }

  clear(lane) {
    this.lane = lane;
    this.parts = [];
    this.element.replaceChildren();
  }
}
