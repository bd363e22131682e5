// The attention matrix of one forward: a row for every query, a column for the cached prefix and one for every
// input. It is one slider to the keyboard: up and down choose the query row.

import { el, setAttr, setText } from './dom.js';
import { positionOf, regions, sees } from './forwards.js';
import { querySentence } from './forwardwords.js';
import { box, svg } from './svg.js';
import { count, plural } from './words.js';

const LARGEST = 20; // px of one cell
const LABELLED = 12; // px from which rows carry their text
const GRID = 6; // px from which cells are told apart
const HEAD = 22; // px above the matrix
const PAGE = 8; // rows

export class Matrix {
  /** `moved(row)` is called with the query row that is pointed at or reached by key, or null. */
  constructor(moved) {
    this.moved = moved;
    this.row = null;
    this.plot = svg('svg', 'ndp-pat-plot', { 'aria-hidden': 'true' });
    this.pad = el('div', 'ndp-pat-pad', {
      role: 'slider', tabindex: 0, 'aria-orientation': 'vertical', 'aria-label': 'Query row of the attention pattern',
      onkeydown: (event) => this.key(event),
      onpointermove: (event) => this.point(event),
      onpointerdown: (event) => this.point(event),
      onpointerleave: (event) => { if (event.pointerType === 'mouse' && document.activeElement !== this.pad) this.move(null); },
      onblur: () => this.move(null),
      onfocus: () => { if (this.row === null) this.move(this.shown ?? 0); },
    }, this.plot);
    this.said = el('p', 'ndp-panel-note ndp-pat-row');
    this.element = el('div', 'ndp-pat-matrix', {}, this.pad, this.said);
  }

  move(row) {
    if (row === this.row) return;
    this.row = row;
    this.moved(row);
  }

  point(event) {
    if (!this.forward) return;
    const y = event.clientY - this.plot.getBoundingClientRect().top - HEAD;
    const row = Math.floor(y / this.cell);
    this.move(row >= 0 && row < this.forward.count ? row : null);
  }

  key(event) {
    const at = this.row ?? 0;
    const moves = { ArrowUp: at - 1, ArrowDown: at + 1, PageUp: at - PAGE, PageDown: at + PAGE, Home: 0, End: Infinity };
    if (!(event.key in moves) || !this.forward) return;
    event.preventDefault();
    event.stopPropagation();
    this.move(Math.max(0, Math.min(this.forward.count - 1, moves[event.key])));
  }

  /** Draw `forward` into `width` × `height` px; `name(index)` says what stands at an input, `mark(index)` in brief. */
  draw(forward, { width, height, name, mark }) {
    this.forward = forward;
    this.name = name;
    const { count: n, prefix } = forward;
    if (this.row !== null && this.row >= n) this.row = n - 1;
    const gap = prefix ? Math.min(64, Math.max(34, 6 + prefix / 4)) : 0;
    const fits = (labels) => Math.min(LARGEST, (width - labels - gap - 4) / n, (height - HEAD) / n);
    const labelled = fits(92) >= LABELLED;
    this.left = labelled ? 92 : 34;
    this.cell = Math.max(0.05, fits(this.left));
    this.keys = this.left + gap; // where the inputs' columns begin
    const side = this.cell * n;
    setAttr(this.plot, 'width', Math.ceil(this.keys + side + 2));
    setAttr(this.plot, 'height', Math.ceil(HEAD + side + 2));
    const parts = [this.caption(prefix, gap, n, side)];
    if (prefix) parts.push(this.prefix(gap, side));
    parts.push(svg('rect', 'ndp-pat-field', { x: this.keys, y: HEAD, width: side, height: side }));
    parts.push(svg('path', 'ndp-pat-seen', { d: regions(forward).map((region) => this.area(region)).join('') }));
    if (this.cell >= GRID) parts.push(svg('path', 'ndp-pat-grid', { d: this.lines(n) }));
    if (forward.chain < n) parts.push(svg('path', 'ndp-pat-border', { d: this.border(forward) }));
    this.lit = svg('g', 'ndp-pat-lit');
    parts.push(...(labelled ? this.labels(n, mark) : this.ends(n)), this.lit);
    this.plot.replaceChildren(...parts);
  }

  x(key) {
    return this.keys + key * this.cell;
  }

  y(query) {
    return HEAD + query * this.cell;
  }

  caption(prefix, gap, n, side) {
    const text = svg('g', 'ndp-pat-caption');
    if (prefix) text.append(svg('text', '', { x: this.keys - 8, y: 14, 'text-anchor': 'end', text: `${count(prefix)} cached` }));
    text.append(svg('text', '', { x: this.keys, y: 14, text: this.columns(n, side / 5.6) }));
    if (this.left > 80) text.append(svg('text', '', { x: 0, y: 14, text: 'query' }));
    return text;
  }

  /** What the columns are, in as many words as `room` characters allow. */
  columns(n, room) {
    const { chain, groups, group, shadows } = this.forward;
    const behind = groups > 1 ? `${groups} × ${group} masks` : groups ? `${group} masks` : shadows?.length ? plural(shadows.length, 'shadow') : '';
    const wishes = [behind ? `keys: ${plural(chain, 'token')} | ${behind}` : '', `keys: these ${count(n)}`, count(n)];
    return wishes.find((wish) => wish && wish.length <= room) ?? '';
  }

  /** The cached prefix, in full view of every query. It is drawn shorter than it is, so its edge is torn. */
  prefix(gap, side) {
    const right = this.keys - 5;
    const steps = Math.max(2, Math.round(side / 8));
    const teeth = Array.from({ length: steps }, (_, i) => `L${right - (i % 2 ? 0 : 4)} ${HEAD + (side * (i + 0.5)) / steps}`).join('');
    return svg('path', 'ndp-pat-prefix', { d: `M${this.left} ${HEAD}L${right} ${HEAD}${teeth}L${right} ${HEAD + side}L${this.left} ${HEAD + side}z` });
  }

  area({ rows, keys, stairs }) {
    const left = this.x(keys[0]);
    if (!stairs) return box(left, this.y(rows[0]), this.x(keys[1]) - left, this.y(rows[1]) - this.y(rows[0]));
    // One outline down the diagonal: a step a row where rows can be seen, a slope where they cannot.
    if (this.cell < 1) return `M${left} ${this.y(rows[0])}L${this.x(keys[1])} ${this.y(rows[1])}L${left} ${this.y(rows[1])}z`;
    let path = `M${left} ${this.y(rows[0])}`;
    for (let i = rows[0]; i < rows[1]; i += 1) path += `h${this.cell}v${this.cell}`;
    return `${path}H${left}z`;
  }

  lines(n) {
    let path = '';
    for (let i = 1; i < n; i += 1) path += `M${this.x(i)} ${HEAD}V${this.y(n)}M${this.keys} ${this.y(i)}H${this.x(n)}`;
    return path;
  }

  /** Between the tokens and the masks or shadows behind them. */
  border({ chain, count: n }) {
    return `M${this.x(chain)} ${HEAD}V${this.y(n)}M${this.keys} ${this.y(chain)}H${this.x(n)}`;
  }

  labels(n, mark) {
    return Array.from({ length: n }, (_, i) => {
      const { text, kind } = mark(i);
      return svg('text', 'ndp-pat-label', { x: this.left - 6, y: this.y(i) + this.cell / 2 + 4, 'text-anchor': 'end', 'data-kind': kind, text: text.length > 10 ? `${text.slice(0, 9)}…` : text });
    });
  }

  ends(n) {
    const at = (i, y) => svg('text', 'ndp-pat-label', { x: this.left - 4, y, 'text-anchor': 'end', text: String(positionOf(this.forward, i)) });
    return this.cell * n < 26 ? [at(0, HEAD + 10)] : [at(0, HEAD + 10), at(this.forward.chain - 1, Math.max(HEAD + 22, this.y(this.forward.chain)))];
  }

  /** Light up a query row, or none; `other` is the row of the cell looked at elsewhere in the player. */
  light(other) {
    const { forward } = this;
    const row = this.row ?? other;
    this.shown = row;
    setAttr(this.pad, 'aria-valuemin', 1);
    setAttr(this.pad, 'aria-valuemax', forward.count);
    setAttr(this.pad, 'aria-valuenow', (row ?? 0) + 1);
    const sentence = row === null ? `${plural(forward.count, 'query row')}. Point at one, or use ↑ ↓ here, to see which keys it reads.` : querySentence(forward, row, this.name);
    setAttr(this.pad, 'aria-valuetext', row === null ? 'no row chosen' : sentence);
    setText(this.said, sentence);
    if (row === null) {
      this.lit.replaceChildren();
      return;
    }
    const tall = Math.max(this.cell, 2);
    const y = this.y(row) + this.cell / 2 - tall / 2;
    const seen = sees(forward, row).map(([a, b]) => box(this.x(a), y, this.x(b) - this.x(a), tall)).join('');
    const cached = forward.prefix ? box(this.left, y, this.keys - this.left - 9, tall) : '';
    this.lit.replaceChildren(
      svg('path', 'ndp-pat-hit', { d: cached + seen }),
      svg('rect', 'ndp-pat-line', { x: this.left - 1, y: y - 1, width: this.x(forward.count) - this.left + 2, height: tall + 2 }),
    );
  }
}
