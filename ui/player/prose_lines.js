// Where the lines of a text begin that is too long to stand in the page as a whole: it is laid out once, out of
// sight and without its slots, and of every few lines the beginning is noted. Text that begins at such a place
// breaks as the whole text does, so any part of it can be shown by itself.

import { el } from './dom.js';

const EVERY = 8; // lines from one note to the next
const TOKENS = 1024; // laid out at a time
const REACH = 32; // tokens: where a line breaks may depend on the rest of the word in front of the break

export class Lines {
  /** `slots`: what stands in the text, {text, special} each; `host`: the element whose width and font they have. */
  constructor(slots, host) {
    this.slots = slots;
    this.sheet = el('div', 'ndp-prose-measure');
    host.append(this.sheet);
    this.forget(0);
  }

  /** Slots from `index` on have changed, or 0: everything. */
  forget(index) {
    if (!index) this.marks = [{ index: 0, offset: 0, line: 0 }]; // lines that begin `offset` characters into a slot
    while (this.marks.length > 1 && this.marks.at(-1).index + REACH >= index) this.marks.pop();
    this.count = null; // lines of the whole text
  }

  /** Number of the last mark at or before a slot or a line. */
  markAt(what, value) {
    let low = 0;
    let high = this.marks.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.marks[middle][what] <= value) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  /** Lay out what has changed. Reads the page's layout. */
  measure() {
    if (this.count !== null) return;
    this.sheet.replaceChildren('x');
    this.pitch = this.sheet.getBoundingClientRect().height;
    let tokens = TOKENS;
    while (this.count === null) {
      const from = this.marks.at(-1);
      const to = Math.min(this.slots.length, from.index + tokens);
      const whole = to === this.slots.length;
      const part = new Part(this.slots, from, to, this.sheet, this.pitch);
      // The last line goes on behind the part, unless the text ends there.
      for (let line = EVERY; line < part.lines; line += EVERY) this.marks.push({ ...part.beginning(line), line: from.line + line });
      if (whole) this.count = from.line + part.lines;
      else if (this.marks.at(-1) === from) tokens *= 2;
    }
    this.sheet.replaceChildren();
  }
}

/** The slots from a mark up to slot `to`, laid out in `sheet`. */
class Part {
  constructor(slots, from, to, sheet, pitch) {
    this.pitch = pitch;
    this.slots = slots;
    this.from = from;
    this.nodes = []; // {node, at}: where its characters begin
    this.starts = []; // of all nodes
    this.length = 0;
    let text = '';
    const plain = () => {
      if (text) this.add(document.createTextNode(text), text.length);
      text = '';
    };
    for (let index = from.index; index < to; index += 1) {
      const slot = slots[index];
      const shown = index === from.index ? slot.text.slice(from.offset) : slot.text;
      if (!slot.special) text += shown;
      else {
        plain();
        this.add(el('span', 'ndp-slot ndp-special', { text: shown }), shown.length);
      }
    }
    plain();
    sheet.replaceChildren(...this.nodes.map(({ node }) => node));
    const box = sheet.getBoundingClientRect();
    this.top = box.top;
    this.lines = Math.round(box.height / pitch);
    this.range = document.createRange();
    // Where each slot's characters begin.
    this.begins = [];
    let at = -from.offset;
    for (let index = from.index; index < to; index += 1) {
      this.begins.push(Math.max(0, at));
      at += slots[index].text.length;
    }
  }

  add(node, length) {
    this.nodes.push({ node, at: this.length });
    this.starts.push(this.length);
    this.length += length;
  }

  /** {index, offset} of the first character in `line`, counted from the part's own first line. */
  beginning(line) {
    let low = 0;
    let high = this.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.lineOf(middle) < line) low = middle + 1;
      else high = middle;
    }
    const slot = lastUpTo(this.begins, low);
    return { index: this.from.index + slot, offset: low - this.begins[slot] + (slot ? 0 : this.from.offset) };
  }

  lineOf(character) {
    for (let at = character; at < this.length; at += 1) {
      const { node, at: begin } = this.nodes[lastUpTo(this.starts, at)];
      const inside = node.firstChild ?? node;
      this.range.setStart(inside, at - begin);
      this.range.setEnd(inside, at - begin + 1);
      const box = [...this.range.getClientRects()].at(-1);
      if (box) return Math.floor((box.top + box.height / 2 - this.top) / this.pitch);
    }
    return this.lines - 1;
  }
}

/** Index of the last entry of an ascending list that is at most `limit`. */
function lastUpTo(list, limit) {
  let low = 0;
  let high = list.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (list[middle] <= limit) low = middle;
    else high = middle - 1;
  }
  return low;
}
