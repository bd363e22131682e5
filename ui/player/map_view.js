// Which part of the map is in view: zoom and pan, in pixels of the canvas. Fitted, the whole map is in view and
// tiles shrink as a run grows; once zoomed, tiles keep their size.

const WIDEST = 76; // CSS px of a tile
const HIGHEST = 24;

const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

/** A size that a growing run reaches seldom, so that a fitted map does not shrink with every step. */
export const capacity = (size) => 16 * 1.3 ** Math.max(0, Math.ceil(Math.log(size / 16) / Math.log(1.3)));

export class Viewport {
  constructor() {
    this.area = { width: 1, height: 1 };
    this.size = { columns: 1, rows: 1 };
    this.unit = 1;
    this.reset();
  }

  /** Back to the whole map. */
  reset() {
    this.fitted = true;
    this.x = 0;
    this.y = 0;
    this.settle();
  }

  /** The room there is, and how much there is to show. */
  set({ width, height, unit, columns, rows }) {
    const scale = unit / this.unit;
    this.area = { width, height };
    this.size = { columns: Math.max(1, columns), rows: Math.max(1, rows) };
    this.unit = unit;
    for (const key of ['x', 'y', 'width', 'height']) this[key] *= scale;
    this.settle();
  }

  get least() {
    return {
      width: Math.min(WIDEST * this.unit, this.area.width / this.size.columns),
      height: Math.min(HIGHEST * this.unit, this.area.height / this.size.rows),
    };
  }

  settle() {
    const { least, unit } = this;
    if (this.fitted) Object.assign(this, least);
    this.width = clamp(this.width, least.width, WIDEST * unit);
    this.height = clamp(this.height, least.height, HIGHEST * unit);
    this.x = Math.round(clamp(this.x, 0, Math.max(0, this.size.columns * this.width - this.area.width)));
    this.y = Math.round(clamp(this.y, 0, Math.max(0, this.size.rows * this.height - this.area.height)));
  }

  get canGrow() {
    return this.width < WIDEST * this.unit - 0.01 || this.height < HIGHEST * this.unit - 0.01;
  }

  /** Zoom by a factor; what lies at (px, py) of the area stays there. */
  zoom(factor, px = this.area.width / 2, py = this.area.height / 2) {
    const [column, row] = [(this.x + px) / this.width, (this.y + py) / this.height];
    this.fitted = false;
    this.width *= factor;
    this.height *= factor;
    this.settle();
    const { least } = this;
    if (factor < 1 && this.width <= least.width * 1.001 && this.height <= least.height * 1.001) this.fitted = true;
    this.x = column * this.width - px;
    this.y = row * this.height - py;
    this.settle();
  }

  pan(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.settle();
  }

  /** Bring a tile into view with some room around it; either coordinate may be null. */
  reveal(column, row) {
    const into = (at, tile, offset, room) => {
      const margin = Math.min(room / 4, tile * 2);
      return clamp(offset, (at + 1) * tile - room + margin, at * tile - margin);
    };
    if (column !== null) this.x = into(column, this.width, this.x, this.area.width);
    if (row !== null) this.y = into(row, this.height, this.y, this.area.height);
    this.settle();
  }

  showsRow(row) {
    const top = row * this.height;
    return top >= this.y - 0.5 && top + this.height <= this.y + this.area.height + 0.5;
  }

  /** The tile under a point of the area. */
  tileAt(px, py) {
    return { column: Math.floor((this.x + px) / this.width), row: Math.floor((this.y + py) / this.height) };
  }

  /** Ranges of columns and rows that a rectangle of the content touches. */
  touching({ x, y, width, height }) {
    const range = (from, room, tile, most) => [clamp(Math.floor(from / tile), 0, most), clamp(Math.ceil((from + room) / tile), 0, most)];
    return [range(x, width, this.width, Math.ceil(this.size.columns)), range(y, height, this.height, Math.ceil(this.size.rows))];
  }

  get visible() {
    return { x: this.x, y: this.y, ...this.area };
  }

  /** Where tiles lie in the content, on whole pixels. */
  get plan() {
    const { width, height, unit } = this;
    return { left: (column) => Math.round(column * width), top: (row) => Math.round(row * height), width, height, unit };
  }
}
