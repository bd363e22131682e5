// What the map draws: for every position the list of its changes, in columns of numbers. A tile (position, step)
// shows the last change at or before its step, so a run of 32 thousand steps needs no table of steps × positions,
// and new steps are only ever added. What changes is decided by the fold alone (fold.js).

import { Canvas, isEmitted } from './fold.js';

export const STATUS = ['empty', 'masked', 'seed', 'committed', 'draft', 'accepted', 'rejected', 'bonus', 'pinned'];
export const [EMPTY, MASKED, SEED, COMMITTED, DRAFT, ACCEPTED, REJECTED, BONUS, PINNED] = STATUS.keys();
const CODE = new Map(STATUS.map((status, code) => [status, code]));
const OPENING = new Set(['denoise', 'draft', 'revise']);
const RUNNING = new Set(['ar', 'linear_spec', 'quadratic_spec', 'remote']); // write from left to right, so order counts the run's forwards or chunks
const WORKING = new Set(['denoise', 'draft', 'verify', 'revise', 'commit']);

/** What a change is besides its status. */
export const FRESH = 1; // the text gains this token here
export const REMASKED = 2;
export const REVISED = 4;

/** A list of numbers of one type that grows at its end. */
class Column {
  constructor(Type) {
    this.values = new Type(1024);
    this.length = 0;
  }

  push(value) {
    if (this.length === this.values.length) {
      const wider = new this.values.constructor(this.length * 2);
      wider.set(this.values);
      this.values = wider;
    }
    this.values[this.length] = value;
    this.length += 1;
  }

  at(index) {
    return this.values[index];
  }
}

export class MapData {
  constructor(lane) {
    this.lane = lane;
    this.rows = 0; // steps taken in
    this.columns = 0; // positions from the start of the answer on
    this.canvas = new Canvas();
    this.step = new Column(Int32Array);
    this.status = new Column(Uint8Array);
    this.token = new Column(Int32Array);
    this.confidence = new Column(Float32Array);
    this.entropy = new Column(Float32Array);
    this.order = new Column(Int32Array); // of the forward: among those of its block, or of the run; from 1
    this.blockwise = !RUNNING.has(lane.mode);
    this.marks = new Column(Uint8Array);
    this.changes = []; // changes[column]: indices into the columns above, by step
    this.lookStep = new Column(Int32Array);
    this.lookEntropy = new Column(Float32Array);
    this.lookCell = []; // the recorded candidates themselves
    this.looks = []; // looks[column]: indices into the three above, by step
    this.blocks = []; // {start, end: columns, from, to: rows, number, phase}
    this.phases = []; // one phase name a row
    this.longest = 1; // greatest order so far
    this.entropies = 0; // changes and looks that recorded one
    this.remasks = 0;
    this.revisions = 0;
  }

  /** Take in the steps that have come since; returns the first of them, or -1. */
  sync() {
    const { steps } = this.lane;
    if (this.rows === steps.length) return -1;
    const first = this.rows;
    for (; this.rows < steps.length; this.rows += 1) this.take(steps[this.rows], this.rows);
    return first;
  }

  take(step, index) {
    const { cells, rejected } = this.canvas;
    const [low, high] = step.span;
    const touched = new Set(rejected);
    if (OPENING.has(step.phase)) for (let position = low; position < high; position += 1) touched.add(position);
    const remasked = new Set();
    for (const event of step.events) {
      touched.add(event.position);
      if (event.kind === 'remask') remasked.add(event.position);
    }
    const before = new Map();
    for (const position of touched) before.set(position, cells.get(position));
    this.canvas.apply(step, index);
    this.phases.push(step.phase);
    const order = this.enter(step, index);
    for (const position of touched) {
      const cell = cells.get(position);
      if (cell !== before.get(position)) this.change(position, cell, before.get(position), index, order, remasked);
    }
    for (const look of step.candidates ?? []) this.look(look, index);
  }

  /** Note which block the step works on; returns the number of its forward, as `order` counts. */
  enter(step, index) {
    const last = this.blocks.at(-1);
    const start = step.span[0] - this.lane.start;
    if (!WORKING.has(step.phase) || start < 0) return this.blockwise ? 1 : index + 1;
    const end = step.span[1] - this.lane.start;
    if (last && last.start === start && end <= last.end) last.to = index;
    else this.blocks.push({ start, end, from: index, to: index, number: step.block });
    this.columns = Math.max(this.columns, end);
    return this.blockwise ? index - this.blocks.at(-1).from + 1 : index + 1;
  }

  change(position, cell, before, index, order, remasked) {
    const column = position - this.lane.start;
    if (column < 0) return;
    const emitted = isEmitted(cell);
    const fresh = emitted && !(isEmitted(before) && before.token === cell.token);
    const reopened = cell?.status === 'masked' && remasked.has(position);
    const revised = emitted && this.lane.revisions.at(position, index)?.step === index;
    while (this.changes.length <= column) this.changes.push([]);
    this.columns = Math.max(this.columns, column + 1);
    this.changes[column].push(this.step.length);
    this.step.push(index);
    this.status.push(CODE.get(cell?.status ?? 'empty'));
    this.token.push(cell?.token ?? -1);
    this.confidence.push(cell?.confidence ?? NaN);
    this.entropy.push(cell?.entropy ?? NaN);
    const rank = this.blockwise && cell?.status === 'seed' ? 1 : order; // a seed was there before its block
    this.order.push(rank);
    if (fresh) this.longest = Math.max(this.longest, rank);
    this.marks.push((fresh ? FRESH : 0) | (reopened ? REMASKED : 0) | (revised ? REVISED : 0));
    if (Number.isFinite(cell?.entropy)) this.entropies += 1;
    this.remasks += reopened ? 1 : 0;
    this.revisions += revised ? 1 : 0;
  }

  look(look, index) {
    const column = look.position - this.lane.start;
    if (column < 0) return;
    while (this.looks.length <= column) this.looks.push([]);
    this.looks[column].push(this.lookCell.length);
    this.lookStep.push(index);
    this.lookEntropy.push(look.entropy ?? NaN);
    this.lookCell.push(look);
    if (Number.isFinite(look.entropy)) this.entropies += 1;
  }

  /** Index of the change that a tile shows, or -1. */
  changeAt(column, row) {
    return lastUpTo(this.changes[column] ?? [], this.step.values, row);
  }

  /** Index of what was last seen at a tile's position at or before its step, or -1. */
  lookAt(column, row) {
    return lastUpTo(this.looks[column] ?? [], this.lookStep.values, row);
  }

  /** A tile in words' terms: {status, token, confidence, entropy, since, marks}. */
  tile(column, row) {
    const change = this.changeAt(column, row);
    if (change < 0) return { status: 'empty', token: null, confidence: NaN, entropy: NaN, since: -1, marks: 0 };
    const token = this.token.at(change);
    return {
      status: STATUS[this.status.at(change)],
      token: token < 0 ? null : token,
      confidence: this.confidence.at(change),
      entropy: this.entropy.at(change),
      since: this.step.at(change),
      marks: this.marks.at(change),
    };
  }
}

/** The last of `indices` whose step is at most `row`, or -1. */
function lastUpTo(indices, steps, row) {
  let low = 0;
  let high = indices.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (steps[indices[middle]] <= row) low = middle + 1;
    else high = middle;
  }
  return low ? indices[low - 1] : -1;
}

const known = new WeakMap();

/** The map's data of a lane, up to date; built once and shared by all who ask. */
export function dataOf(lane) {
  if (!known.has(lane)) known.set(lane, new MapData(lane));
  const data = known.get(lane);
  data.sync();
  return data;
}

/** What the analyses found out about a lane: wrong commits in order, and regret by column (or null). */
export function findingsOf(lane) {
  const notes = lane.head.annotations ?? [];
  if (found.get(lane)?.notes === notes) return found.get(lane);
  const wrong = [];
  let regret = null;
  for (const note of notes) {
    if (!Number.isInteger(note?.position) || note.position < lane.start) continue;
    if (note.kind === 'wrong_commit' && Number.isInteger(note.step)) wrong.push(note);
    else if (note.kind === 'regret' && Number.isFinite(note.nats)) (regret ??= new Map()).set(note.position - lane.start, note);
  }
  wrong.sort((a, b) => a.step - b.step || a.position - b.position);
  found.set(lane, { notes, wrong, regret });
  return found.get(lane);
}

const found = new WeakMap();
