// The text for reading. Every position gets a slot that already holds its final token, so that lines
// break where they will break in the end: resolving a token only makes it visible. While a run is live the
// end is not known; then the newest text is the reference and slots are only ever added behind it.

import { level } from './confidence.js';
import { el } from './dom.js';
import { isEmitted } from './fold.js';
import { isSpecial, proseText } from './pieces.js';

const UNKNOWN = '\u00a0\u00a0\u00a0\u200b'; // a slot's width before its token is known; lines may break behind it
const STATES = ['hidden', 'shown', 'masked', 'draft', 'rejected', 'other'];
const [HIDDEN, SHOWN, MASKED, DRAFT, REJECTED, OTHER] = STATES.keys();

export class Prose {
  /** `focus` (optional) lets slots be inspected like cells. */
  constructor(focus = null) {
    this.element = el('div', 'ndp-prose', { dir: 'auto', 'aria-hidden': 'true' });
    this.slots = []; // {node, token (undefined: no reference yet), code, other}
    this.compared = null; // what `compare` marked last
    if (focus) this.listen(focus);
  }

  listen(focus) {
    const positionOf = (event) => {
      const slot = event.target.closest?.('.ndp-slot');
      return slot ? this.lane.start + this.slots.findIndex((s) => s.node === slot) : null;
    };
    this.element.addEventListener('pointerover', (event) => {
      if (event.pointerType === 'mouse') focus.pass(positionOf(event));
    });
    this.element.addEventListener('pointerleave', () => focus.pass(null));
    this.element.addEventListener('click', (event) => {
      const position = positionOf(event);
      if (position !== null && window.getSelection().isCollapsed) focus.toggle(position);
    });
  }

  /** Match the slots to what is known of the text by now. */
  reserve(lane) {
    if (lane === this.lane && lane.last === this.last && lane.ended === this.ended) return;
    if (lane !== this.lane) {
      this.slots = [];
      this.compared = null;
      this.element.replaceChildren();
    }
    this.lane = lane;
    this.last = lane.last;
    this.ended = lane.ended;
    const reference = lane.ended ? lane.output(lane.last) : growing(lane);
    const added = document.createDocumentFragment();
    reference.forEach((token, index) => {
      if (index === this.slots.length) {
        const node = el('span', 'ndp-slot', { 'data-state': 'hidden' });
        this.slots.push({ node, token: undefined, code: HIDDEN, other: null });
        added.append(node);
      }
      const slot = this.slots[index];
      if (slot.token === token) return;
      slot.token = token;
      const piece = token === null ? '' : lane.piece(token);
      slot.node.textContent = token === null ? UNKNOWN : proseText(piece);
      slot.node.classList.toggle('ndp-special', isSpecial(piece));
    });
    this.element.append(added);
    for (const slot of this.slots.splice(reference.length)) slot.node.remove();
  }

  /** Show the state after one step; `pinned` is a position to mark. */
  update({ lane, cells, step }, pinned = null) {
    this.reserve(lane);
    for (let index = 0; index < this.slots.length; index += 1) {
      const slot = this.slots[index];
      const cell = cells.get(lane.start + index);
      const state = stateOf(cell, slot.token);
      const fresh = cell !== undefined && cell.step === step;
      const tint = state === SHOWN || state === OTHER ? level(cell.confidence) : -1;
      const code = state | ((tint + 1) << 3) | (fresh ? 256 : 0) | (lane.start + index === pinned ? 512 : 0) | (state === SHOWN && lane.revisions.at(lane.start + index, step) ? 1024 : 0);
      const other = state === OTHER ? cell.token : null;
      if (code === slot.code && other === slot.other) continue;
      this.draw(slot, code, other);
    }
  }

  /** Mark the slots whose token is not that of `other`, another run of the same prompt; null marks none. */
  compare(other) {
    const key = other && `${other.head.id} ${other.last} ${this.last}`;
    if (key === this.compared) return;
    this.compared = key;
    const ids = other && other.output(other.last);
    this.slots.forEach((slot, index) => slot.node.classList.toggle('ndp-differs', ids !== null && slot.token !== undefined && slot.token !== ids[index]));
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

/** Tokens by position as far as a live run has got; null where a cell is still open. */
function growing(lane) {
  const tokens = [];
  const { cells } = lane.fold.newest;
  for (let position = lane.start; cells.has(position); position += 1) {
    const cell = cells.get(position);
    tokens.push(isEmitted(cell) ? cell.token : null);
  }
  return tokens;
}
