// The part of a long text that stands in the page: what its box shows and some lines around, whatever the length of
// the text. The box scrolls; it follows the step shown until somebody scrolls away from it.

import { el, setAttr, setText } from './dom.js';
import { Lines } from './prose_lines.js';

const RTL = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]/;

export class ProsePart {
  /** `slots`: all of the text; `enter(slot, index)` is called for a slot that comes into the page, to give it its looks. */
  constructor({ element, slots, enter, scrolled }) {
    Object.assign(this, { element, slots, enter });
    this.sheet = el('div', 'ndp-prose-sheet', { 'aria-hidden': 'true' });
    element.replaceChildren(this.sheet);
    for (const [name, value] of [['data-long', 'true'], ['aria-hidden', null], ['role', 'group'], ['aria-label', 'Text of the answer'], ['tabindex', 0]]) setAttr(element, name, value);
    this.lines = new Lines(slots, element);
    this.first = 0; // the slots in the page: [first, end)
    this.end = 0;
    this.clipped = null; // the first of them, where its beginning belongs to the line above
    this.top = 0; // of the box, in px of the text
    this.width = 0; // px; 0 while there is no room to show anything
    this.target = null; // what is followed, {from, to}: slots
    this.away = false; // somebody has scrolled away from it
    this.selecting = false; // somebody has begun to select text
    this.onscroll = () => this.scrolled(scrolled);
    this.onselect = () => (this.selecting = true);
    element.addEventListener('scroll', this.onscroll);
    element.addEventListener('selectstart', this.onselect);
    this.observer = new ResizeObserver(() => (this.pending ||= requestAnimationFrame(() => this.resized(scrolled))));
    this.observer.observe(element);
  }

  /** Leave the element as it was. */
  remove() {
    this.observer.disconnect();
    cancelAnimationFrame(this.pending);
    this.element.removeEventListener('scroll', this.onscroll);
    this.element.removeEventListener('selectstart', this.onselect);
    for (const slot of this.slots) slot.node = null;
    for (const name of ['data-long', 'role', 'aria-label', 'tabindex']) setAttr(this.element, name, null);
    setAttr(this.element, 'aria-hidden', 'true');
    setAttr(this.element, 'dir', 'auto');
    this.element.replaceChildren();
  }

  /** The text has changed from slot `index` on. */
  change(index) {
    for (let gone = Math.max(this.first, this.slots.length); gone < this.end; gone += 1) this.sheet.lastChild.remove();
    this.end = Math.min(this.end, this.slots.length);
    this.first = Math.min(this.first, this.end);
    this.lines.forget(index);
    this.stale = true;
  }

  // -- what is in the page ------------------------------------------------------------------------

  /** Follow slots [from, to); `jump`: even if somebody has scrolled away. */
  update({ from, to }, jump) {
    if (!this.width) this.room();
    if (!this.width) return;
    const before = this.target;
    this.target = { from, to };
    if (this.stale) this.layOut();
    if (jump || !before) this.away = false;
    if (!this.away && (jump || before?.from !== from || before?.to !== to)) this.reveal();
  }

  room() {
    this.width = this.sheet.clientWidth;
    this.height = this.element.clientHeight;
    this.lines.forget(0);
    this.stale = true;
  }

  layOut() {
    this.stale = false;
    setAttr(this.element, 'dir', this.direction());
    this.lines.measure();
    this.sheet.style.height = `${this.lines.count * this.lines.pitch}px`;
    this.height = this.element.clientHeight;
    this.place();
  }

  /** The direction of the whole text, which is that of its first letter. */
  direction() {
    for (const { text } of this.slots) if (/\p{L}/u.test(text)) return RTL.test(/\p{L}/u.exec(text)[0]) ? 'rtl' : 'ltr';
    return 'ltr';
  }

  /** Have the slots in the page that the box shows, half a box around, and what is selected. */
  place() {
    const { lines, slots } = this;
    const { marks, pitch } = lines;
    const around = this.height / 3;
    let mark = lines.markAt('line', (this.top - around) / pitch);
    const behind = marks[lines.markAt('line', (this.top + this.height + around) / pitch) + 1];
    let end = behind ? behind.index + (behind.offset ? 1 : 0) : slots.length;
    for (const index of this.selected()) {
      end = Math.max(end, index + 1);
      mark = Math.min(mark, this.markOf(index));
    }
    this.fill(marks[mark].index, Math.min(end, slots.length));
    this.clip(marks[mark].offset);
    this.sheet.style.paddingTop = `${marks[mark].line * pitch}px`;
  }

  /** Number of the last mark from which on the whole of a slot is shown. */
  markOf(index) {
    const { marks } = this.lines;
    let mark = this.lines.markAt('index', index);
    while (marks[mark].index === index && marks[mark].offset) mark -= 1;
    return mark;
  }

  /** Slots at the ends of what is selected of the text. */
  selected() {
    if (!this.selecting) return []; // asking for the selection lays out the page
    const { anchorNode, focusNode, isCollapsed } = window.getSelection();
    if (isCollapsed) return [];
    return [anchorNode, focusNode].map((node) => this.indexOf(node)).filter((index) => index >= 0);
  }

  /** The slot that a node of the page lies in, or -1. */
  indexOf(node) {
    const slot = (node?.nodeType === Node.TEXT_NODE ? node.parentElement : node)?.closest?.('.ndp-slot');
    return slot?.parentNode === this.sheet ? this.first + Array.prototype.indexOf.call(this.sheet.children, slot) : -1;
  }

  fill(first, end) {
    const { slots, sheet } = this;
    for (let index = this.first; index < this.end; index += 1) {
      if (index >= first && index < end) continue;
      slots[index].node.remove();
      slots[index].node = null;
    }
    const kept = first < this.end && this.first < end && this.first < this.end;
    const added = (from, to) => {
      const nodes = [];
      for (let index = from; index < to; index += 1) {
        this.enter(slots[index], index);
        nodes.push(slots[index].node);
      }
      return nodes;
    };
    if (!kept) sheet.append(...added(first, end));
    else {
      sheet.prepend(...added(first, Math.min(this.first, end)));
      sheet.append(...added(Math.max(this.end, first), end));
    }
    this.first = first;
    this.end = end;
    setAttr(sheet, 'data-first', first);
  }

  /** Of the first slot, leave out what belongs to the line above. */
  clip(offset) {
    const slot = this.slots[this.first] ?? null;
    if (this.clipped?.node && this.clipped !== slot) setText(this.clipped.node, this.clipped.text);
    this.clipped = offset ? slot : null;
    if (slot?.node) setText(slot.node, slot.text.slice(offset));
  }

  // -- scrolling ----------------------------------------------------------------------------------

  /** Bring what is followed into view. */
  reveal() {
    const { target, lines, slots } = this;
    const last = slots.length - 1;
    const from = Math.max(0, Math.min(target.from, last));
    const to = Math.max(from, Math.min(target.to - 1, last));
    if (last < 0) return;
    const { pitch } = lines;
    if (from < this.first || to >= this.end) {
      this.top = Math.max(0, lines.marks[this.markOf(from)].line * pitch - this.height * 0.4); // near enough to have it in the page
      this.place();
    }
    const low = slots[from].node.offsetTop;
    const bottom = slots[to].node ?? slots[this.end - 1].node;
    const high = bottom.offsetTop + bottom.offsetHeight;
    this.shown = { low, high };
    const now = this.element.scrollTop;
    let top = now;
    if (low > now + 2 * this.height || high < now - this.height) top = low - this.height * 0.4;
    else if (high > now + this.height) top = high - this.height + 1.5 * pitch;
    else if (low < now) top = low - 1.5 * pitch;
    if (top !== now) this.element.scrollTop = Math.round(top / pitch) * pitch;
    this.top = this.own = this.element.scrollTop;
    this.place();
  }

  scrolled(done) {
    const { scrollTop } = this.element;
    if (!this.width || scrollTop === this.top) return;
    this.top = scrollTop;
    if (scrollTop !== this.own && this.shown) this.away = this.shown.high <= scrollTop || this.shown.low >= scrollTop + this.height;
    done();
    this.place();
  }

  resized(done) {
    this.pending = 0;
    const width = this.sheet.clientWidth;
    if (width === this.width && this.element.clientHeight === this.height) return;
    done();
    if (width !== this.width) {
      const { lines, top } = this;
      const reading = this.width ? lines.marks[lines.markAt('line', top / lines.pitch)].index : 0;
      this.room();
      if (!width) return;
      this.layOut();
      if (this.away) this.top = this.element.scrollTop = lines.marks[this.markOf(reading)].line * lines.pitch;
    }
    this.height = this.element.clientHeight;
    if (this.target && !this.away) this.reveal();
    else this.place();
  }
}
