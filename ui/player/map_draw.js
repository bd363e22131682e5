// Draws the map with a pen (map_pens.js): tiles, marks, block borders and rulers. A `plan` says where things go:
// {left(column), top(row): px, width, height: px of a tile, unit: px of the drawing for a CSS pixel}.

import { cellText } from './pieces.js';
import { ACCEPTED, BONUS, DRAFT, EMPTY, FRESH, MASKED, PINNED, REJECTED, REMASKED, REVISED, SEED } from './map_data.js';

export const TEXT_WIDTH = 34; // CSS px from which on a tile has room for its token
export const TEXT_HEIGHT = 15;
const SHAPES_FROM = 9; // CSS px of a tile from which on its mark can be told
const GAPS_FROM = 5;
const PER_CHARACTER = 0.61; // of the font size, in a monospaced font

/** What is drawn alike for a whole map. */
export class Painter {
  constructor({ data, findings, scale, palette }) {
    Object.assign(this, { data, findings, scale, palette, lane: data.lane });
  }

  /** Tiles of columns [c0, c1) and rows [r0, r1), with block borders. */
  tiles(pen, plan, [c0, c1], [r0, r1]) {
    const { data } = this;
    const { unit, width, height } = plan;
    this.small = Math.min(width, height) / unit;
    this.written = width >= TEXT_WIDTH * unit && height >= TEXT_HEIGHT * unit;
    const end = Math.min(r1, data.rows);
    const every = Math.max(1, Math.floor(1 / width)); // one column a pixel is enough
    for (let column = c0; column < Math.min(c1, data.columns); column += every) this.column(pen, plan, column, r0, end);
    if (this.small >= GAPS_FROM) this.gaps(pen, plan, [c0, Math.min(c1, data.columns)], [r0, end]);
    this.borders(pen, plan, [c0, c1], [r0, end]);
  }

  column(pen, plan, column, r0, r1) {
    const { data } = this;
    const indices = data.changes[column];
    if (!indices) return;
    const steps = data.step.values;
    const x = plan.left(column);
    const width = Math.max(1, plan.left(column + 1) - x);
    let at = 0;
    let high = indices.length;
    while (at < high) {
      const middle = (at + high) >> 1;
      if (steps[indices[middle]] <= r0) at = middle + 1;
      else high = middle;
    }
    for (at = Math.max(0, at - 1); at < indices.length; at += 1) {
      const change = indices[at];
      const from = Math.max(r0, steps[change]);
      const to = at + 1 < indices.length ? Math.min(r1, steps[indices[at + 1]]) : r1;
      if (steps[change] >= r1) break;
      if (from < to) this.stretch(pen, plan, { column, change, from, to, x, width });
    }
  }

  /** The tiles of one position between two of its changes. */
  stretch(pen, plan, { column, change, from, to, x, width }) {
    const { data, palette } = this;
    const status = data.status.values[change];
    if (status === EMPTY) return;
    const y = plan.top(from);
    const height = Math.max(1, plan.top(to) - y);
    const marks = data.marks.values[change];
    const first = from === data.step.values[change];
    let level = -1;
    if (status === MASKED) {
      pen.rect(x, y, width, height, palette.sunken);
      if (this.scale.looked) this.looks(pen, plan, { column, from, to, x, width });
      pen.pattern(x, y, width, height, 'hatch');
    } else if (status === DRAFT) {
      pen.rect(x, y, width, height, palette.surface);
      if (!this.written) pen.pattern(x, y, width, height, 'dots');
      if (this.small >= SHAPES_FROM) pen.frame(x, y, width - plan.unit, height - plan.unit, palette['phase-draft'], 1.5 * plan.unit, [3 * plan.unit, 2 * plan.unit]);
    } else if (status === REJECTED) {
      pen.rect(x, y, width, height, palette.surface);
      this.struck(pen, plan, { from, to, x, width });
    } else {
      level = this.scale.level(data, change, column, this.findings);
      pen.rect(x, y, width, height, level < 0 ? palette.line : palette[`${this.scale.ramp}${level}`]);
      if (this.scale.looked) this.looks(pen, plan, { column, from, to, x, width });
      if (first && marks & FRESH) this.commit(pen, plan, x, y, width, status);
    }
    if (this.written) this.words(pen, plan, { column, change, from, to, x, width, level, status });
    if (first && marks & (REMASKED | REVISED)) this.notch(pen, plan, x, plan.top(from + 1), width, marks & REVISED);
  }

  /** Colours that change with every forward that looked at the cell. */
  looks(pen, plan, { column, from, to, x, width }) {
    const { data, palette, scale } = this;
    const indices = data.looks[column] ?? [];
    const steps = data.lookStep.values;
    for (let i = 0; i < indices.length; i += 1) {
      const low = Math.max(from, steps[indices[i]]);
      const high = Math.min(to, i + 1 < indices.length ? steps[indices[i + 1]] : to);
      if (low >= to) break;
      const level = scale.looked(data, indices[i]);
      if (low < high && level >= 0) pen.rect(x, plan.top(low), width, Math.max(1, plan.top(high) - plan.top(low)), palette[`${scale.ramp}${level}`]);
    }
  }

  /** The moment of a commit: a bar along the tile's upper edge; special kinds add their mark. */
  commit(pen, plan, x, y, width, status) {
    const { unit } = plan;
    const { palette } = this;
    const thick = Math.max(1, Math.round(Math.min(2.5 * unit, plan.height * 0.34)));
    const colour = status === BONUS ? palette.bonus : status === ACCEPTED ? palette.good : palette.fresh;
    if (this.scale.ramp === 'o' && this.small >= GAPS_FROM) pen.rect(x, y, width, thick + unit, palette.surface);
    pen.rect(x, y, width, thick, colour);
    if (this.small >= SHAPES_FROM) this.badge(pen, unit, x + width - unit, y, status, colour);
  }

  /** A small sign in the upper right corner, the same as in the block. */
  badge(pen, unit, right, top, status, colour) {
    const size = 9 * unit;
    const [left, middle, low] = [right - size, right - size / 2, top + size];
    const sign = this.palette.surface;
    if (status === SEED) pen.shape([left, top, right, top, right, low], this.palette.ink);
    if (status !== PINNED && status !== BONUS && status !== ACCEPTED) return;
    pen.rect(left, top, size, size, colour);
    const centre = top + size / 2;
    if (status === PINNED) pen.shape([middle, top + 1.5 * unit, right - 1.5 * unit, centre, middle, low - 1.5 * unit, left + 1.5 * unit, centre], sign);
    else if (status === ACCEPTED) pen.line([left + 2 * unit, centre, left + 4 * unit, low - 2.5 * unit, right - 1.5 * unit, top + 2 * unit], sign, 1.5 * unit);
    else {
      pen.line([left + 1.5 * unit, centre, right - 1.5 * unit, centre], sign, 1.5 * unit);
      pen.line([middle, top + 1.5 * unit, middle, low - 1.5 * unit], sign, 1.5 * unit);
    }
  }

  struck(pen, plan, { from, to, x, width }) {
    const { palette } = this;
    if (this.small < GAPS_FROM) {
      pen.pattern(x, plan.top(from), width, Math.max(1, plan.top(to) - plan.top(from)), 'lines');
      return;
    }
    for (let row = from; row < to; row += 1) {
      const middle = Math.round((plan.top(row) + plan.top(row + 1)) / 2);
      pen.line([x + plan.unit, middle, x + width - 2 * plan.unit, middle], palette.bad, Math.max(1, 1.5 * plan.unit));
    }
  }

  /** The lower left corner of a tile that was masked again (hollow) or got another token (full). */
  notch(pen, plan, x, bottom, width, revised) {
    const { unit } = plan;
    const size = Math.max(3 * unit, Math.min(8 * unit, width * 0.6, plan.height * 0.6));
    const low = bottom - (this.small >= GAPS_FROM ? unit : 0);
    const colour = this.palette['phase-revise'];
    pen.shape([x, low - size, x + size, low, x, low], revised ? colour : this.palette.surface, colour, 2.5 * unit);
  }

  words(pen, plan, { column, change, from, to, x, width, level, status }) {
    const { data, palette, lane, scale } = this;
    const token = data.token.values[change];
    if (token < 0) return;
    const { unit } = plan;
    const room = width - 6 * unit;
    const text = [...cellText(lane.piece(token))];
    const size = Math.max(10 * unit, Math.min(12.5 * unit, room / (Math.max(1, text.length) * PER_CHARACTER)));
    const most = Math.max(1, Math.floor(room / (size * PER_CHARACTER)));
    const shown = text.length > most ? `${text.slice(0, Math.max(1, most - 1)).join('')}…` : text.join('');
    const since = data.step.values[change];
    for (let row = from; row < to; row += 1) {
      let tone = level;
      if (scale.looked) {
        const look = data.lookAt(column, row);
        if (look >= 0) tone = scale.looked(data, look);
      }
      const ink = status === REJECTED ? palette.bad : status === DRAFT || tone < 0 ? palette.ink : palette[`${scale.ramp === 'o' ? 'u' : 't'}${tone}`];
      const middle = (plan.top(row) + plan.top(row + 1)) / 2;
      // The token is told where it comes and repeated faintly below.
      pen.text(x + (width - unit) / 2, middle + size * 0.34, shown, ink, { size, anchor: 'middle', mono: true, opacity: row === since ? 1 : 0.62 });
    }
  }

  gaps(pen, plan, [c0, c1], [r0, r1]) {
    const { unit } = plan;
    const colour = this.palette.surface;
    const [x, y] = [plan.left(c0), plan.top(r0)];
    const [right, bottom] = [plan.left(c1), plan.top(r1)];
    for (let column = c0; column < c1; column += 1) pen.rect(plan.left(column + 1) - unit, y, unit, bottom - y, colour);
    for (let row = r0; row < r1; row += 1) pen.rect(x, plan.top(row + 1) - unit, right - x, unit, colour);
  }

  /** An outline around the positions and steps that belong to one block. */
  borders(pen, plan, [c0, c1], [r0, r1]) {
    const { unit } = plan;
    for (const block of this.data.blocks) {
      if (block.from >= r1) break;
      if (block.to < r0 || block.start >= c1 || block.end <= c0) continue;
      const [x, y] = [plan.left(block.start), plan.top(block.from)];
      const [right, bottom] = [plan.left(block.end), plan.top(block.to + 1)];
      if (right - x < 3 * unit || bottom - y < 2 * unit) continue;
      pen.frame(x - unit, y - unit, right - x + unit, bottom - y + unit, this.palette.edge, unit);
    }
  }

  /** Triangles on wrong commits; drawn last, and large enough to be seen on any tile. */
  wrongs(pen, plan, [c0, c1], [r0, r1]) {
    const { unit } = plan;
    const { palette, lane } = this;
    for (const note of this.findings.wrong) {
      const column = note.position - lane.start;
      if (column < c0 || column >= c1 || note.step < r0 || note.step >= r1) continue;
      const large = this.small >= 14;
      const size = (large ? 9 : Math.max(7, Math.min(10, this.small))) * unit;
      const x = large ? plan.left(column) + size / 2 + unit : (plan.left(column) + plan.left(column + 1)) / 2;
      const y = large ? plan.top(note.step) + size / 2 + 3 * unit : (plan.top(note.step) + plan.top(note.step + 1)) / 2;
      pen.shape([x - size / 2, y + size * 0.45, x, y - size * 0.5, x + size / 2, y + size * 0.45], palette.bad, palette.surface, 3 * unit);
    }
  }
}

/** Even steps for a ruler: the smallest of 1, 2, 5, 10, … that leaves `room` px between labels. */
export function pace(pitch, room) {
  for (let power = 1; ; power *= 10) for (const digit of [1, 2, 5]) if (digit * power * pitch >= room) return digit * power;
}

/**
 * The two rulers: answer positions above, steps with a strip of their phases on the left. `area` is the room of the
 * tiles {x, y, width, height}, `shift` how far the plan's zero lies from its corner.
 */
export function rulers(pen, { data, palette, plan, area, shift, columns, rows }) {
  const { unit } = plan;
  const size = 11 * unit;
  const strip = 4 * unit;
  pen.within(area.x, area.y - 16 * unit, area.width, 16 * unit, () => {
    const every = pace(plan.width, 34 * unit);
    for (let n = Math.max(1, Math.ceil((columns[0] + 1) / every) * every); n <= columns[1]; n += every) {
      const x = area.x + shift.x + (plan.left(n - 1) + plan.left(n)) / 2;
      pen.rect(Math.round(x), area.y - 4 * unit, unit, 3 * unit, palette.edge);
      pen.text(x, area.y - 6 * unit, String(n), palette.muted, { size, anchor: 'middle' });
    }
  });
  pen.within(area.x - 44 * unit, area.y, 44 * unit, area.height, () => {
    const every = pace(plan.height, 20 * unit);
    let row = rows[0];
    while (row < Math.min(rows[1], data.rows)) {
      const phase = data.phases[row];
      const from = row;
      while (row < Math.min(rows[1], data.rows) && data.phases[row] === phase) row += 1;
      const y = area.y + shift.y + plan.top(from);
      pen.rect(area.x - strip - unit, y, strip, Math.max(1, plan.top(row) - plan.top(from)), palette[`phase-${phase}`] ?? palette.edge);
    }
    for (let n = Math.max(1, Math.ceil((rows[0] + 1) / every) * every); n <= Math.min(rows[1], data.rows); n += every) {
      const y = area.y + shift.y + (plan.top(n - 1) + plan.top(n)) / 2;
      pen.text(area.x - strip - 5 * unit, y + size * 0.36, String(n), palette.muted, { size, anchor: 'end' });
    }
  });
}
