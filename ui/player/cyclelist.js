// All cycles as rows aligned by position: the draft, what verification made of it, what was emitted. Only the
// cycles in sight have elements, so a run of thousands scrolls like one of ten.

import { el, setAttr } from './dom.js';
import { cellText } from './pieces.js';
import { plural } from './words.js';

const TALL = 104; // px of one cycle; the stylesheet agrees
const SPARE = 2; // cycles kept ready above and below
const LABEL = 62; // px of the row names
const NARROWEST = 44; // px of one cell
const WIDEST = 84;
const SAID = new Map([['accepted', 'accepted'], ['refused', 'refused'], ['dropped', 'not judged'], ['bonus', 'bonus'], ['none', '']]);
let made = 0;

export class CycleList {
  /** `choose(cycle)` is called when a cycle is picked. */
  constructor(choose) {
    made += 1;
    this.id = `ndp-cyc-${made}`;
    this.choose = choose;
    this.cycles = [];
    this.current = null; // the cycle of the step in view
    this.pool = new Map(); // index among `cycles` -> element
    this.head = el('div', 'ndp-cyc-head', { 'aria-hidden': 'true' });
    this.sheet = el('div', 'ndp-cyc-sheet', { role: 'presentation' });
    this.element = el('div', 'ndp-cyc-list', {
      role: 'listbox', tabindex: 0, 'aria-label': 'Cycles',
      onscroll: () => this.place(),
      onkeydown: (event) => this.key(event),
      onclick: (event) => this.click(event),
    }, this.head, this.sheet);
  }

  /** Show `cycles` of `lane`, with room for `longest` positions behind the pending one, in `width` px. */
  show(cycles, lane, longest, width) {
    this.cycles = cycles;
    this.lane = lane;
    const room = Math.floor((width - LABEL - 18) / (longest + 1));
    this.column = Math.max(NARROWEST, Math.min(WIDEST, room));
    this.element.style.setProperty('--nd-column', `${this.column}px`);
    const across = LABEL + this.column * (longest + 1);
    this.head.replaceChildren(el('span', 'ndp-cyc-name', { text: 'offset' }), ...Array.from({ length: longest + 1 }, (_, i) => el('span', 'ndp-cyc-cell', { text: String(i) })));
    this.head.style.width = `${across}px`;
    this.sheet.style.width = `${across}px`;
    this.sheet.style.height = `${Math.max(1, cycles.length) * TALL}px`;
    this.empty();
    this.place();
  }

  empty() {
    this.pool.clear();
    this.sheet.replaceChildren(...(this.cycles.length ? [] : [el('p', 'ndp-panel-note ndp-cyc-none', { text: 'No cycle has been verified yet.' })]));
  }

  /** Make what is in sight, drop what is not. */
  place() {
    const { scrollTop, clientHeight } = this.element;
    const from = Math.max(0, Math.floor(scrollTop / TALL) - SPARE);
    const to = Math.min(this.cycles.length, Math.ceil((scrollTop + clientHeight) / TALL) + SPARE);
    for (const [index, node] of this.pool) {
      if (index >= from && index < to) continue;
      node.remove();
      this.pool.delete(index);
    }
    for (let index = from; index < to; index += 1) if (!this.pool.has(index)) this.add(index);
    this.light();
  }

  add(index) {
    const cycle = this.cycles[index];
    const drafts = cycle.cells.filter((cell) => cell.draft !== null);
    const accepted = drafts.filter((cell) => cell.verdict === 'accepted').length;
    const text = cycle.cells.map((cell) => (cell.emitted === null ? '' : cellText(this.lane.piece(cell.emitted)))).join('');
    const title = `cycle ${cycle.number + 1} · ${plural(cycle.length, 'token')} · ${accepted} of ${drafts.length} accepted`;
    const node = el(
      'div', 'ndp-cyc-item',
      { role: 'option', id: `${this.id}-${index}`, 'data-index': index, 'aria-label': `${title}: “${text}”`, 'aria-setsize': this.cycles.length, 'aria-posinset': index + 1, style: `top:${index * TALL}px` },
      el('div', 'ndp-cyc-title', { text: `${title} · step ${cycle.step + 1}` }),
      this.row('draft', cycle, (cell) => (cell.draft === null ? null : { token: cell.draft, verdict: 'draft' })),
      this.row('verify', cycle, (cell) => (cell.draft === null ? null : { token: cell.draft, verdict: cell.verdict })),
      this.row('emitted', cycle, (cell) => (cell.emitted === null ? null : { token: cell.emitted, verdict: cell.verdict === 'accepted' ? 'emitted' : 'bonus' })),
    );
    this.pool.set(index, node);
    this.sheet.append(node);
  }

  row(name, cycle, pick) {
    const pending = name === 'draft' && cycle.pending !== null ? { token: cycle.pending, verdict: 'pending' } : null;
    const cells = [pending, ...cycle.cells.map(pick)].map((shown) => {
      if (shown === null) return el('span', 'ndp-cyc-cell');
      const text = cellText(this.lane.piece(shown.token));
      return el('span', 'ndp-cyc-cell', { 'data-verdict': shown.verdict, title: `${text} ${SAID.get(shown.verdict) ?? shown.verdict}` }, el('span', 'ndp-cyc-token', { text }));
    });
    return el('div', 'ndp-cyc-row', { 'aria-hidden': 'true' }, el('span', 'ndp-cyc-name', { text: name }), ...cells);
  }

  /** Mark the cycle of the step in view, and keep it in sight unless somebody is reading here. */
  mark(cycle) {
    if (cycle === this.current) return;
    this.current = cycle;
    const busy = this.element.matches(':hover') || this.element.contains(document.activeElement);
    if (!busy) this.reveal(this.cycles.indexOf(cycle));
    this.light();
  }

  light() {
    const at = this.cycles.indexOf(this.current);
    for (const [index, node] of this.pool) setAttr(node, 'aria-selected', String(index === at));
    setAttr(this.element, 'aria-activedescendant', this.pool.has(at) ? `${this.id}-${at}` : null);
  }

  reveal(index) {
    if (index < 0) return;
    const { element } = this;
    const room = element.clientHeight - this.head.offsetHeight;
    if (index * TALL < element.scrollTop) element.scrollTop = index * TALL;
    else if ((index + 1) * TALL > element.scrollTop + room) element.scrollTop = Math.ceil(((index + 1) * TALL - room) / TALL) * TALL;
    this.place();
  }

  pick(index) {
    if (!this.cycles[index]) return;
    this.current = this.cycles[index];
    this.reveal(index);
    this.light();
    this.choose(this.cycles[index]);
  }

  click(event) {
    const item = event.target.closest?.('.ndp-cyc-item');
    if (item) this.pick(Number(item.dataset.index));
  }

  key(event) {
    const at = this.cycles.indexOf(this.current);
    const last = this.cycles.length - 1;
    const moves = { ArrowUp: at - 1, ArrowDown: at + 1, PageUp: at - 3, PageDown: at + 3, Home: 0, End: last, Enter: at };
    if (!(event.key in moves)) return;
    event.preventDefault();
    event.stopPropagation();
    this.pick(Math.max(0, Math.min(last, moves[event.key])));
  }
}
