// Cells by absolute position, in pages that copies share until one of them writes: a copy costs as many entries as
// there are pages, and two states can be compared page by page without looking at a cell.

export const PAGE = 128; // positions
const pageOf = (position) => Math.floor(position / PAGE);

let written = 0; // counts the writes of all states, so that a version names one content of one page

export class Cells {
  constructor(pages = new Map()) {
    this.pages = pages; // page number -> {version, cells}
    this.own = new Set(); // numbers of pages that nobody else holds
  }

  copy() {
    this.own.clear();
    return new Cells(new Map(this.pages));
  }

  get(position) {
    return this.pages.get(pageOf(position))?.cells[position % PAGE];
  }

  has(position) {
    return this.get(position) !== undefined;
  }

  set(position, cell) {
    const number = pageOf(position);
    let page = this.pages.get(number);
    if (!this.own.has(number)) {
      page = { version: 0, cells: page ? page.cells.slice() : Array(PAGE).fill(undefined) };
      this.pages.set(number, page);
      this.own.add(number);
    }
    page.cells[position % PAGE] = cell;
    written += 1;
    page.version = written;
  }

  delete(position) {
    if (this.has(position)) this.set(position, undefined);
  }

  /** What page `number` holds, as a number: the same number, the same cells. */
  version(number) {
    return this.pages.get(number)?.version ?? 0;
  }

  *[Symbol.iterator]() {
    for (const [number, page] of this.pages) {
      for (const [offset, cell] of page.cells.entries()) if (cell !== undefined) yield [number * PAGE + offset, cell];
    }
  }
}

/** Splits positions [start, end) where pages begin: [{number, from, to}]. */
export function* pagesIn(start, end) {
  for (let from = start; from < end; ) {
    const number = pageOf(from);
    const to = Math.min(end, (number + 1) * PAGE);
    yield { number, from, to };
    from = to;
  }
}
