// The text for reading. Every position gets a slot that already holds its final token, so that lines
// break where they will break in the end: resolving a token only makes it visible. While a run is live the
// end is not known; then the newest text is the reference and slots are only ever added behind it.

import { level } from './confidence.js';
import { el } from './dom.js';
import { isEmitted } from './fold.js';
import { pagesIn } from './pages.js';
import { isSpecial, proseText } from './pieces.js';
import { ProsePart } from './prose_part.js';

const LONG = 2048; // tokens; of a longer text, only the part in view stands in the page
const UNKNOWN = '\u00a0\u00a0\u00a0\u200b'; // a slot's width before its token is known; lines may break behind it
const STATES = ['hidden', 'shown', 'masked', 'draft', 'rejected', 'other'];
const [HIDDEN, SHOWN, MASKED, DRAFT, REJECTED, OTHER] = STATES.keys();

export class Prose {
  /** `focus` (optional) lets slots be inspected like cells. */
  constructor(focus = null) {
    this.element = el('div', 'ndp-prose', { dir: 'auto', 'aria-hidden': 'true' });
    this.slots = []; // {node (null: not in the page), token (undefined: no reference yet), text, special, code, other, differs}
    this.part = null; // which slots of a long text are in the page
    this.compared = null; // what `compare` marked last
    if (focus) this.listen(focus);
  }

  listen(focus) {
    const positionOf = (event) => {
      const slot = event.target.closest?.('.ndp-slot');
      return slot ? this.lane.start + (this.part ? this.part.indexOf(slot) : this.slots.findIndex((s) => s.node === slot)) : null;
    };
    this.element.addEventListener('pointerover', (event) => {
      if (event.pointerType === 'mouse') focus.pass(positionOf(event));
    });
    this.element.addEventListener('pointerleave', () => focus.pass(null));
    this.element.addEventListener('click', (event) => {
      const position = positionOf(event);
      if (position === null || !window.getSelection().isCollapsed) return;
      this.chosen = position; // in view already
      focus.toggle(position);
    });
  }

  // -- the slots ----------------------------------------------------------------------------------

  /** Match the slots to what is known of the text by now. */
  reserve(lane) {
    if (lane === this.lane && lane.last === this.last && lane.ended === this.ended) return;
    if (lane !== this.lane) this.begin(lane);
    this.last = lane.last;
    this.ended = lane.ended;
    const before = this.slots.length;
    const changed = this.read(lane);
    if (!this.part && (this.slots.length > LONG || (!lane.ended && lane.request.max_new_tokens > LONG))) this.lengthen();
    if (this.part) {
      if (changed < Math.max(before, this.slots.length)) this.part.change(changed);
      return;
    }
    const added = this.slots.slice(before);
    for (const slot of added) this.enter(slot);
    this.element.append(...added.map((slot) => slot.node));
  }

  begin(lane) {
    this.part?.remove();
    this.part = null;
    this.lane = lane;
    this.slots = [];
    this.words = new Map(); // token -> how it is written
    this.versions = new Map(); // page of cells -> what was read of it last
    this.compared = null;
    this.frame = null;
    this.element.replaceChildren();
  }

  /** Read the newest text, as far as it has changed; returns the first slot that has. */
  read(lane) {
    const { cells, front } = lane.fold.newest;
    let end = front;
    if (!lane.ended) while (cells.has(end)) end += 1; // cells that are still open have a place too
    let changed = Infinity;
    for (const { number, from, to } of pagesIn(lane.start, end)) {
      const key = `${cells.version(number)} ${to}`;
      if (this.versions.get(number) === key) continue;
      this.versions.set(number, key);
      for (let position = from; position < to; position += 1) {
        const cell = cells.get(position);
        if (this.write(position - lane.start, isEmitted(cell) ? cell.token : null)) changed = Math.min(changed, position - lane.start);
      }
    }
    const gone = this.slots.splice(end - lane.start);
    if (gone.length) changed = Math.min(changed, this.slots.length);
    if (!this.part) for (const slot of gone) slot.node.remove();
    return changed;
  }

  /** Give a slot its token; returns whether it had another. */
  write(index, token) {
    const slot = (this.slots[index] ??= { node: null, token: undefined, text: '', special: false, code: HIDDEN, other: null, differs: false });
    if (slot.token === token) return false;
    slot.token = token;
    if (!this.words.has(token)) {
      const piece = token === null ? '' : this.lane.piece(token);
      this.words.set(token, { text: token === null ? UNKNOWN : proseText(piece), special: isSpecial(piece) });
    }
    Object.assign(slot, this.words.get(token));
    if (slot.node) this.dress(slot);
    return true;
  }

  dress({ node, text, special, differs }) {
    node.textContent = text;
    node.classList.toggle('ndp-special', special);
    node.classList.toggle('ndp-differs', differs);
  }

  /** Give a slot its element; in a long text, with its looks of the step shown. */
  enter(slot, index) {
    slot.node = el('span', 'ndp-slot', { 'data-state': 'hidden' });
    slot.code = HIDDEN;
    slot.other = null;
    this.dress(slot);
    if (this.part && this.frame) this.show(index);
  }

  /** From here on only a part of the text stands in the page. */
  lengthen() {
    for (const slot of this.slots) slot.node = null;
    const again = () => {
      if (this.frame) this.frame.cells = this.lane.fold.at(this.frame.step); // the fold may have moved on
    };
    this.part = new ProsePart({ element: this.element, slots: this.slots, enter: (slot, index) => this.enter(slot, index), scrolled: again });
  }

  // -- what they show -----------------------------------------------------------------------------

  /** Show the state after one step; `pinned` is a position to mark, `still` says that the picture will stay. */
  update({ lane, cells, step }, pinned = null, still = true) {
    this.reserve(lane);
    const before = this.frame;
    this.frame = { cells, step, pinned };
    if (this.part) this.follow(before, still);
    const [first, end] = this.part ? [this.part.first, this.part.end] : [0, this.slots.length];
    for (let index = first; index < end; index += 1) this.show(index);
  }

  /** Keep in view what the step worked on, or the cell that has just been pinned. */
  follow(before, still) {
    const { lane, part } = this;
    const { step, pinned } = this.frame;
    const chosen = pinned !== null && pinned !== before?.pinned && pinned !== this.chosen;
    this.chosen = null;
    const span = lane.spanAt(step);
    const [from, to] = chosen ? [pinned, pinned + 1] : [span.start, span.end];
    const jumped = still && before !== null && Math.abs(step - before.step) > 1;
    const held = pinned !== null && pinned === before?.pinned && step === before.step;
    if (held) part.update(part.target ?? { from: from - lane.start, to: to - lane.start }, false);
    else part.update({ from: from - lane.start, to: to - lane.start }, chosen || jumped);
  }

  show(index) {
    const { lane } = this;
    const { cells, step, pinned } = this.frame;
    const slot = this.slots[index];
    const position = lane.start + index;
    const cell = cells.get(position);
    const state = stateOf(cell, slot.token);
    const fresh = cell !== undefined && cell.step === step;
    const tint = state === SHOWN || state === OTHER ? level(cell.confidence) : -1;
    const code = state | ((tint + 1) << 3) | (fresh ? 256 : 0) | (position === pinned ? 512 : 0) | (state === SHOWN && lane.revisions.at(position, step) ? 1024 : 0);
    const other = state === OTHER ? cell.token : null;
    if (code !== slot.code || other !== slot.other) this.draw(slot, code, other);
  }

  /** Mark the slots whose token is not that of `other`, another run of the same prompt; null marks none. */
  compare(other) {
    const key = other && `${other.head.id} ${other.last} ${this.last}`;
    if (key === this.compared) return;
    this.compared = key;
    const ids = other && other.output(other.last);
    this.slots.forEach((slot, index) => {
      slot.differs = ids !== null && slot.token !== undefined && slot.token !== ids[index];
      slot.node?.classList.toggle('ndp-differs', slot.differs);
    });
  }

  draw(slot, code, other) {
    const data = slot.node.dataset;
    const changed = code ^ slot.code;
    if (changed & 7) data.state = STATES[code & 7];
    if (changed & 248) data.level = String(((code >> 3) & 31) - 1);
    if (changed & 256) data.fresh = String((code & 256) !== 0);
    if (changed & 512) data.pinned = String((code & 512) !== 0);
    if (changed & 1024) data.revised = String((code & 1024) !== 0);
    if (other !== slot.other) {
      if (other === null) delete data.other;
      else data.other = proseText(this.lane.piece(other));
    }
    slot.code = code;
    slot.other = other;
  }
}

function stateOf(cell, reference) {
  if (cell === undefined) return HIDDEN;
  if (isEmitted(cell)) return cell.token === reference ? SHOWN : OTHER;
  if (cell.status === 'draft') return cell.token === reference ? DRAFT : MASKED;
  return cell.status === 'rejected' ? REJECTED : MASKED;
}
