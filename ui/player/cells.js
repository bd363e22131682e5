// The block in view: one fixed cell per position, resolving in place, and behind the block's border the
// cell where its bonus or the next seed lands. Only cells that changed are touched.

import { level } from './confidence.js';
import { el, setAttr, setText } from './dom.js';
import { isEmitted } from './fold.js';
import { columns, fitFont } from './layout.js';
import { cellText } from './pieces.js';
import { STATUS_NAMES } from './words.js';

const GAP = 4;
const PADDING = 10; // room inside a cell that text cannot use
const STACKED_BELOW = 560; // px: the cell behind the block goes under it

export class BlockRow {
  constructor(focus) {
    this.focus = focus;
    this.pool = [];
    this.current = 0; // the cell that Tab reaches
    this.frame = el('div', 'ndp-block', { role: 'listbox', 'aria-label': 'Cells of the block', 'aria-orientation': 'horizontal' });
    this.behind = el('div', 'ndp-behind', { role: 'listbox', 'aria-label': 'Cell behind the block' });
    this.element = el('div', 'ndp-row', {}, this.frame);
    this.listen();
  }

  listen() {
    const positionOf = (event) => {
      const cell = event.target.closest?.('.ndp-cell');
      return cell ? Number(cell.dataset.position) : null;
    };
    this.element.addEventListener('pointerover', (event) => {
      if (event.pointerType === 'mouse') this.focus.pass(positionOf(event));
    });
    this.element.addEventListener('pointerleave', () => {
      if (!this.element.contains(document.activeElement)) this.focus.pass(null);
    });
    this.element.addEventListener('focusin', (event) => {
      const index = this.pool.findIndex((cell) => cell.node === event.target);
      if (index >= 0) this.current = index;
      this.focus.pass(positionOf(event));
    });
    this.element.addEventListener('focusout', (event) => {
      if (!this.element.contains(event.relatedTarget)) this.focus.pass(null);
    });
    this.element.addEventListener('click', (event) => {
      const position = positionOf(event);
      if (position !== null) this.focus.toggle(position);
    });
  }

  /** Arrow keys among the cells; returns whether the key was one of the row's own. */
  key(event) {
    const index = this.pool.findIndex((cell) => cell.node === event.target);
    if (index < 0) return false;
    const last = this.pool.length - 1;
    const moves = {
      ArrowLeft: index - 1,
      ArrowRight: index + 1,
      ArrowUp: index - this.columns,
      ArrowDown: index + this.columns,
      Home: 0,
      End: last,
    };
    if (event.key === 'Enter') {
      this.focus.toggle(Number(event.target.dataset.position));
      return true;
    }
    if (!(event.key in moves)) return false;
    this.reach(Math.max(0, Math.min(last, moves[event.key])));
    this.pool[this.current].node.focus();
    return true;
  }

  reach(index) {
    setAttr(this.pool[this.current]?.node ?? this.frame, 'tabindex', -1);
    this.current = index;
    setAttr(this.pool[index].node, 'tabindex', 0);
  }

  /** Give the row as many cells as the block has. Their width and the room they take are a whole block's, so that a short one moves nothing. */
  shape(lane, span, width) {
    const size = span.end - span.start;
    const total = size + span.extra;
    const most = Math.max(size, lane.widest);
    const whole = Math.max(most, lane.mode === 'ar' ? 0 : (lane.request.block_length ?? 0));
    if (total === this.pool.length && width === this.width && size === this.size && most === this.most && whole === this.whole) return;
    this.most = most;
    this.whole = whole;
    this.width = width;
    this.size = size;
    while (this.pool.length < total) this.pool.push(makeCell());
    for (const cell of this.pool.splice(total)) cell.node.remove();
    for (const cell of this.pool) setAttr(cell.node, 'tabindex', -1);
    this.reach(Math.min(this.current, total - 1));

    const stacked = width < STACKED_BELOW;
    const inner = width - 2 * (GAP + 5); // padding and border of the frame
    const room = stacked || !span.extra ? inner : inner - 98;
    this.columns = columns(whole, room, GAP);
    this.cellWidth = Math.floor((room - GAP * (this.columns - 1)) / this.columns);
    this.element.dataset.stacked = String(stacked);
    this.element.dataset.tight = String(most > 32);
    this.frame.style.setProperty('--nd-rows', String(Math.ceil(most / this.columns)));
    this.frame.style.gridTemplateColumns = `repeat(${this.columns}, minmax(0, 1fr))`;
    this.frame.replaceChildren(...this.pool.slice(0, size).map((cell) => cell.node));
    if (span.extra) {
      this.behind.replaceChildren(this.pool[size].node);
      this.behind.style.width = stacked ? `${this.cellWidth}px` : '';
      this.element.append(this.behind);
    } else this.behind.remove();
    for (const cell of this.pool) cell.key = '';
  }

  update({ lane, cells, step, span }, width) {
    this.shape(lane, span, width);
    const pinned = this.focus.pinned;
    this.pool.forEach((slot, index) => {
      const position = span.start + index;
      const cell = cells.get(position);
      const fresh = cell !== undefined && cell.step === step;
      const revision = cell && isEmitted(cell) ? lane.revisions.at(position, step) : null;
      const old = fresh ? (cell.replaced ?? (revision?.step === step ? revision.from : null)) : null;
      const key = cell
        ? `${position} ${cell.status} ${cell.token} ${cell.confidence} ${old} ${fresh} ${position === pinned} ${revision?.step}`
        : `${position} ${position === pinned}`;
      if (slot.key === key) return;
      slot.key = key;
      this.draw(slot, { lane, position, index, cell, fresh, old, revision, pinned: position === pinned });
    });
  }

  draw(slot, { lane, position, index, cell, fresh, old, revision, pinned }) {
    const { node } = slot;
    const status = cell?.status ?? 'empty';
    const text = cell && cell.token !== null ? cellText(lane.piece(cell.token)) : '';
    const sure = Number.isFinite(cell?.confidence);
    node.dataset.position = String(position);
    node.dataset.status = status;
    node.dataset.level = String(cell ? level(cell.confidence) : -1);
    setAttr(node, 'data-fresh', fresh ? 'true' : null);
    setAttr(node, 'data-revised', revision ? 'true' : null);
    setAttr(node, 'aria-selected', pinned ? 'true' : 'false');
    setText(slot.number, index < this.size ? String(index + 1) : '');
    setText(slot.text, text);
    setText(slot.old, old === null ? '' : cellText(lane.piece(old)));
    setText(slot.figure, sure && status !== 'masked' ? cell.confidence.toFixed(2) : '');
    slot.text.style.fontSize = `${fitFont([...text].length, this.cellWidth - PADDING)}px`;
    const what = text ? `“${text}”, ` : '';
    const how = sure ? `, confidence ${cell.confidence.toFixed(2)}` : '';
    const changed = revision ? `, revised, before “${cellText(lane.piece(revision.from))}”` : '';
    setAttr(node, 'aria-label', `cell ${index + 1}, ${what}${STATUS_NAMES[status]}${how}${changed}`);
  }
}

function makeCell() {
  const number = el('span', 'ndp-cell-n', { 'aria-hidden': 'true' });
  const old = el('s', 'ndp-cell-old');
  const text = el('span', 'ndp-cell-t');
  const figure = el('span', 'ndp-cell-c', { 'aria-hidden': 'true' });
  return { node: el('div', 'ndp-cell ndp-token', { role: 'option' }, number, old, text, figure), number, old, text, figure, key: '' };
}
