// One decoding run as the player knows it: head, steps so far, and the tail once it has ended.

import { Fold } from './fold.js';
import { visibleSpan } from './layout.js';
import { isSpecial } from './pieces.js';
import { Revisions } from './revisions.js';

export class Lane {
  /** `vocabulary` (Map id → piece) grows while the lane runs. */
  constructor(head, vocabulary) {
    this.head = head;
    this.vocabulary = vocabulary;
    this.request = head.request ?? {};
    this.mode = this.request.mode ?? 'ar';
    this.start = head.prompt?.ids?.length ?? 0;
    this.fold = new Fold(this.start);
    this.revisions = new Revisions(this.mode);
    this.spans = []; // spans[i]: the positions worth showing after step i
    this.widest = 0; // cells of the longest of them
    this.looked = null; // what `candidates` found last
    this.tail = null;
    this.fault = null;
  }

  get steps() {
    return this.fold.steps;
  }

  get last() {
    return this.fold.steps.length - 1;
  }

  get ended() {
    return this.tail !== null || this.fault !== null;
  }

  get metrics() {
    return this.tail?.metrics ?? null;
  }

  /** A server wrote the answer: its steps are chunks of a stream, and its forwards are not known. */
  get remote() {
    return this.mode === 'remote';
  }

  /** What is told of such a run once it has ended, null before and of other runs. */
  get told() {
    return (this.remote && this.tail?.environment?.remote) || null;
  }

  /** How many tokens stand in `cells` cells, or NaN where a cell need not be one token. */
  counted(cells) {
    return !this.remote || this.told?.cells === 'tokens' ? cells : NaN;
  }

  push(steps) {
    for (const step of steps) {
      this.revisions.push(step, this.steps.length);
      this.fold.push(step);
      const span = visibleSpan(this, step, this.spans.at(-1) ?? null);
      this.spans.push(span);
      if (span) this.widest = Math.max(this.widest, span.end - span.start);
    }
  }

  /** The positions worth showing after step `index`, looking one block ahead before the first. */
  spanAt(index) {
    const known = this.spans[Math.max(0, index)] ?? this.spans.find(Boolean);
    return known ?? this.spans.find(Boolean) ?? visibleSpan(this, null, null);
  }

  piece(id) {
    return this.vocabulary.get(id) ?? `⟨${id}⟩`;
  }

  /** Output ids after step `index`. Moves the fold's cursor, unless it is the newest step. */
  output(index) {
    if (index >= this.last) return this.fold.output(this.fold.newest.cells);
    return this.fold.output(this.fold.at(index));
  }

  /** How many tokens the output has after step `index`. Moves the fold's cursor, unless it is the newest step. */
  length(index) {
    return index >= this.last ? this.fold.newest.front - this.start : this.fold.length(index);
  }

  /** The output as text, without the end token. */
  text(ids) {
    const pieces = ids.map((id) => this.piece(id));
    if (this.tail?.stop_reason === 'eos' && ids.length && ids.at(-1) === this.tail.output?.ids?.at(-1) && isSpecial(pieces.at(-1))) {
      pieces.pop();
    }
    return pieces.join('');
  }

  /** Time of step `index` since the run began, in nanoseconds. */
  timeAt(index) {
    return index < 0 ? 0 : (this.steps[Math.min(index, this.last)]?.elapsed_ns ?? 0);
  }

  /**
   * What the model considered at `position`, as last seen at or before step `index`:
   * {step, ids, probabilities, entropy}, or null when no forward up to there recorded it.
   */
  candidates(position, index) {
    const last = Math.min(index, this.last);
    // Asked again for the same cell a few steps on, only those steps are looked at.
    const known = this.looked?.position === position ? this.looked : { position, upTo: -1, seen: null };
    let seen = known.seen;
    if (last > known.upTo) seen = this.look(position, last, known.upTo + 1) ?? seen;
    else if (seen && seen.step > last) seen = this.look(position, last, 0);
    this.looked = { position, upTo: last, seen };
    return seen;
  }

  /** The last look at `position` in the steps from `first` to `last`, or null. */
  look(position, last, first) {
    for (let i = last; i >= first; i -= 1) {
      for (const cell of this.steps[i].candidates ?? []) {
        if (cell.position === position) return { step: i, ...cell };
      }
    }
    return null;
  }
}
