// What the model considered for one cell: the recorded candidates with their probabilities, and the
// cell's own figures. The panel keeps its height whatever it shows.

import { el, setAttr, setText } from './dom.js';
import { cellText } from './pieces.js';
import { number } from './words.js';

const HINT = 'Hover, tap or focus a cell to see what the model considered there. Click or Enter pins it.';

export class Inspector {
  constructor(focus) {
    this.focus = focus;
    this.title = el('span', 'ndp-look-piece');
    this.kind = el('span', 'ndp-look-kind');
    this.release = el('button', 'ndp-chip', { type: 'button', text: 'unpin', title: 'Release the pinned cell (Esc)', onclick: () => focus.release() });
    this.facts = el('dl', 'ndp-look-facts');
    this.note = el('p', 'ndp-look-note', { text: HINT });
    this.list = el('ol', 'ndp-look-list', { 'aria-label': 'Candidates' });
    this.rows = [];
    this.values = ['position', 'id', 'confidence', 'entropy'].map((name) => {
      const value = el('dd', '', { text: '–' });
      this.facts.append(el('div', '', {}, el('dt', '', { text: name }), value));
      return value;
    });
    this.head = el('div', 'ndp-look-head', {}, this.title, this.kind, this.release);
    this.element = el('section', 'ndp-look', { 'aria-label': 'Cell inspector' }, this.head, this.facts, this.note, this.list);
    this.empty();
  }

  empty() {
    this.element.dataset.empty = 'true';
    this.release.hidden = true;
    setText(this.note, HINT);
    this.note.hidden = false;
    this.list.hidden = true;
  }

  update({ lane, cells, step }) {
    const { position } = this.focus;
    if (position === null || !lane) {
      this.empty();
      return;
    }
    const cell = cells.get(position);
    const seen = lane.candidates(position, step);
    this.element.dataset.empty = 'false';
    this.release.hidden = this.focus.pinned === null;
    setText(this.title, cell && cell.token !== null ? cellText(lane.piece(cell.token)) : cell ? 'mask' : 'no cell yet');
    setAttr(this.title, 'data-status', cell?.status ?? 'empty');
    const since = cell ? `${cell.status} · step ${cell.step + 1}` : 'not reached at this step';
    setText(this.kind, since);
    const entropy = seen?.entropy ?? cell?.entropy;
    const values = [
      position,
      lane.remote ? '–' : (cell?.token ?? '–'), // a server does not tell its ids
      number(cell?.confidence, 3),
      Number.isFinite(entropy) ? `${number(entropy, 2)} nats` : '–',
    ];
    values.forEach((value, index) => setText(this.values[index], String(value)));
    this.candidates(lane, cell, seen, step);
  }

  candidates(lane, cell, seen, step) {
    this.list.hidden = seen === null;
    this.note.hidden = false;
    if (seen === null) {
      setText(this.note, this.absence(lane));
      return;
    }
    const when = seen.step === step ? 'Candidates in this step' : `Last looked at in step ${seen.step + 1}`;
    setText(this.note, `${when} · ${lane.steps[seen.step].phase}`);
    seen.ids.forEach((id, index) => this.row(index, lane, id, seen.probabilities[index], cell?.token === id));
    for (const row of this.rows.splice(seen.ids.length)) row.node.remove();
  }

  absence(lane) {
    if (lane.remote) return 'A server wrote this: what else it considered is not known.';
    if (lane.request.candidates > 0) return 'No forward has looked at this cell yet.';
    return 'No candidates were recorded in this run. Set “Candidates recorded per cell” above 0 and run again.';
  }

  row(index, lane, id, probability, chosen) {
    if (index === this.rows.length) {
      const piece = el('span', 'ndp-look-token');
      const bar = el('span', 'ndp-look-fill');
      const figure = el('span', 'ndp-look-p');
      const node = el('li', '', {}, piece, el('span', 'ndp-look-bar', { 'aria-hidden': 'true' }, bar), figure);
      this.rows.push({ node, piece, bar, figure });
      this.list.append(node);
    }
    const row = this.rows[index];
    setText(row.piece, cellText(lane.piece(id)));
    setText(row.figure, number(probability, 3));
    row.bar.style.transform = `scaleX(${Math.max(0, Math.min(1, probability || 0))})`;
    setAttr(row.node, 'data-chosen', chosen ? 'true' : null);
    setAttr(row.node, 'title', `token id ${id}`);
  }
}
