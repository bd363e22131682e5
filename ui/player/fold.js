// The fold over a trace: which cells exist, and in what state, after any step. The rules are those of
// `canvas_at` in nemodiff_core/trace.py; a test holds the two against each other.
//
// Cells are frozen records and are replaced, never changed, so copies share them and "did this cell change?" is a
// comparison of two references.

import { Cells } from './pages.js';

const OPENING = new Set(['denoise', 'draft', 'revise']);
const EMITTED = new Set(['seed', 'committed', 'accepted', 'bonus', 'pinned']);
const STATUS = new Map([
  ['seed', 'seed'],
  ['commit', 'committed'],
  ['remask', 'masked'],
  ['draft', 'draft'],
  ['accept', 'accepted'],
  ['reject', 'rejected'],
  ['bonus', 'bonus'],
  ['pin', 'pinned'],
]);
const KEYFRAME_EVERY = 32;
const MOST_KEYFRAMES = 512; // a longer run keeps every other one, so that memory does not grow with its square

/** Whether a cell's token belongs to the output. */
export const isEmitted = (cell) => cell !== undefined && EMITTED.has(cell.status);

/** The state between two steps: `cells` holds cells by absolute position. */
export class Canvas {
  /** `start` is where the output begins. */
  constructor(start = 0, cells = new Cells(), rejected = new Set(), front = start) {
    this.start = start;
    this.cells = cells;
    this.rejected = rejected; // positions of rejected cells, so that sweeping them is cheap
    this.front = front; // the first position from `start` on whose cell is not emitted: where the output ends
  }

  copy() {
    return new Canvas(this.start, this.cells.copy(), new Set(this.rejected), this.front);
  }

  put(position, cell) {
    this.cells.set(position, cell);
    if (cell.status === 'rejected') this.rejected.add(position);
    else this.rejected.delete(position);
    if (!isEmitted(cell)) this.retreat(position);
    else if (position === this.front) while (isEmitted(this.cells.get(this.front))) this.front += 1;
  }

  drop(position) {
    this.cells.delete(position);
    this.rejected.delete(position);
    this.retreat(position);
  }

  /** The cell at `position` is not part of the output any more. */
  retreat(position) {
    if (position >= this.start && position < this.front) this.front = position;
  }

  apply(step, index) {
    const [start, end] = step.span;
    if (OPENING.has(step.phase)) {
      // Refused cells stay visible only until the next forward that fills a block.
      for (const position of this.rejected) {
        if (position >= start && position < end) continue;
        this.drop(position);
      }
      for (let position = start; position < end; position += 1) {
        const cell = this.cells.get(position);
        if (cell === undefined || cell.status === 'rejected') this.put(position, masked(index, null, null));
      }
    }
    for (const event of step.events) this.settle(event, index);
  }

  settle(event, index) {
    const status = STATUS.get(event.kind);
    if (status === undefined) return;
    if (status === 'masked') {
      this.put(event.position, masked(index, event.confidence, event.entropy));
      return;
    }
    const before = this.cells.get(event.position);
    const contradicted =
      status === 'bonus' && before && (before.status === 'draft' || before.status === 'rejected') && before.token !== event.token;
    this.put(
      event.position,
      Object.freeze({
        status,
        token: event.token,
        confidence: event.confidence ?? null,
        entropy: event.entropy ?? null,
        step: index,
        replaced: contradicted ? before.token : null,
      }),
    );
  }
}

function masked(index, confidence, entropy) {
  return Object.freeze({
    status: 'masked',
    token: null,
    confidence: confidence ?? null,
    entropy: entropy ?? null,
    step: index,
    replaced: null,
  });
}

/** All canvases of one trace. Steps are appended as they come; any of them can be asked for. */
export class Fold {
  constructor(promptLength) {
    this.promptLength = promptLength;
    this.steps = [];
    this.newest = new Canvas(promptLength);
    this.every = KEYFRAME_EVERY;
    this.keyframes = [new Canvas(promptLength)]; // keyframes[k]: before step k * every
    this.cursor = new Canvas(promptLength);
    this.cursorStep = -1;
  }

  push(step) {
    this.newest.apply(step, this.steps.length);
    this.steps.push(step);
    if (this.steps.length % this.every) return;
    this.keyframes.push(this.newest.copy());
    if (this.keyframes.length <= MOST_KEYFRAMES) return;
    this.keyframes = this.keyframes.filter((_, k) => k % 2 === 0);
    this.every *= 2;
  }

  /** The cells after step `index` (-1: before anything). They stay valid until the next call. */
  at(index) {
    return this.canvasAt(index).cells;
  }

  /** How many tokens the output has after step `index`. */
  length(index) {
    return this.canvasAt(index).front - this.promptLength;
  }

  canvasAt(index) {
    const target = Math.max(-1, Math.min(index, this.steps.length - 1));
    const frame = Math.floor((target + 1) / this.every);
    const behind = target - this.cursorStep;
    if (behind < 0 || behind > this.every) {
      this.cursor = this.keyframes[frame].copy();
      this.cursorStep = frame * this.every - 1;
    }
    while (this.cursorStep < target) {
      this.cursorStep += 1;
      this.cursor.apply(this.steps[this.cursorStep], this.cursorStep);
    }
    return this.cursor;
  }

  /** Token ids from the end of the prompt up to the first position that is not emitted. */
  output(cells) {
    const ids = [];
    for (let position = this.promptLength; isEmitted(cells.get(position)); position += 1) ids.push(cells.get(position).token);
    return ids;
  }
}
