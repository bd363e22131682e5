// The pattern panel: who sees whom in the forward of the step in view, and what the KV cache keeps of it.

import { el, setText } from './dom.js';
import { Forwards, contentOf, positionOf } from './forwards.js';
import { forwardSentence } from './forwardwords.js';
import { Figures } from './header.js';
import { Matrix } from './matrix.js';
import { cellText } from './pieces.js';
import { Strip } from './strip.js';
import { count } from './words.js';

const HERE = [
  ['cache', 'in the cache', 'Positions in the KV cache before this forward → after it'],
  ['computed', 'computed here', 'Positions that went through the model in this forward'],
  ['kept', 'kept of them', 'Of these, the ones whose keys and values stay in the cache'],
];
const SO_FAR = [
  ['computed', 'computed so far', 'Positions that went through the model from the start up to this step'],
  ['kept', 'in the cache now', 'Positions whose keys and values are in the cache after this step'],
  ['share', 'computed per kept', 'How often a position was computed for each one that is kept; autoregressive decoding has 1.00'],
];
const ONE_COLUMN = 720; // px

class Pattern {
  constructor({ focus }) {
    this.focus = focus;
    this.matrix = new Matrix((row) => this.reach(row));
    this.strip = new Strip();
    this.sentence = el('p', 'ndp-pat-sentence');
    this.here = new Figures(HERE);
    this.soFar = new Figures(SO_FAR);
    const attention = el('section', 'ndp-pat-part', { 'aria-label': 'Attention pattern' }, el('h3', 'ndp-title', { text: 'Who sees whom' }), this.matrix.element);
    this.cache = el('section', 'ndp-pat-part', { 'aria-label': 'KV cache' }, el('h3', 'ndp-title', { text: 'KV cache' }), this.strip.element, this.here.element, el('h3', 'ndp-title ndp-pat-sub', { text: 'Over the run, up to this step' }), this.soFar.element);
    this.body = el('div', 'ndp-pat-body', {}, attention, this.cache);
    this.element = el('div', 'ndp-pat', {}, this.sentence, this.body);
  }

  /** A query row is looked at: the cell there is what the rest of the player looks at too. */
  reach(row) {
    if (this.forward && row !== null) this.focus.pass(positionOf(this.forward, row));
    else this.focus.pass(null);
    if (this.forward) this.mark();
  }

  resized() {
    this.drawn = null;
  }

  update({ lane, step, stale }) {
    if (lane !== this.lane) {
      this.lane = lane;
      this.forwards = new Forwards(lane);
    }
    const width = this.element.clientWidth;
    if (!width) return;
    if (stale || this.drawn !== step) {
      this.drawn = step;
      this.forward = this.forwards.at(step);
      this.draw(step, width);
    }
    if (this.forward) this.mark();
  }

  draw(step, width) {
    const { forward, lane } = this;
    this.body.hidden = forward === null;
    if (forward === null) {
      setText(this.sentence, lane.steps.length ? 'No forward has run yet at this point: go to the first step.' : 'Waiting for the first forward.');
      return;
    }
    const together = lane.tail?.environment?.batch ?? 1;
    const shared = together > 1 ? ` It ran for ${count(together)} requests together; this is the part of one.` : '';
    const adapter = lane.request.adapter !== false && lane.head.model?.adapter === true;
    setText(this.sentence, forwardSentence(forward, { adapter }) + shared);
    const narrow = width < ONE_COLUMN;
    this.body.dataset.columns = narrow ? '1' : '2';
    const half = narrow ? width : Math.floor((width - 32) / 2);
    this.width = half;
    // What stood at each input is asked of the canvas before the step, once, because the fold moves with it.
    const around = { step: lane.steps[step], before: lane.fold.at(step - 1), prompt: lane.head.prompt?.ids ?? [] };
    const contents = Array.from({ length: Math.min(forward.count, 4096) }, (_, i) => contentOf(forward, i, around));
    const mark = (i) => this.markOf(contents[i], i);
    this.matrix.draw(forward, { width: half, height: Math.min(360, half), mark, name: (i) => nameOf(contents[i], i, forward, lane) });
    const figures = forward.shadows === null ? ' or more' : '';
    this.here.set('cache', `${count(forward.before)} → ${count(forward.after)}`);
    this.here.set('computed', `${count(forward.count)}${figures}`);
    this.here.set('kept', count(forward.kept));
    this.soFar.set('computed', `${count(forward.computedSoFar)}${figures}`);
    this.soFar.set('kept', count(forward.after));
    this.soFar.set('share', forward.after ? (forward.computedSoFar / forward.after).toFixed(2) : '–');
  }

  markOf(content, index) {
    const { forward, lane } = this;
    if (index >= forward.chain) return { text: forward.group ? 'mask' : 'shadow', kind: 'mask' };
    if (content === 'mask') return { text: 'mask', kind: 'mask' };
    if (content === null) return { text: '·', kind: 'unknown' };
    return { text: cellText(lane.piece(content)), kind: 'token' };
  }

  /** Show which row and position are looked at, here or elsewhere in the player. */
  mark() {
    const { forward } = this;
    const { position } = this.focus;
    const inside = position !== null && position >= forward.start && position < forward.start + forward.chain;
    this.matrix.light(inside ? position - forward.start : null);
    const shown = `${position} ${this.width}`;
    if (this.stripOf === forward && this.stripAs === shown) return;
    this.stripOf = forward;
    this.stripAs = shown;
    const towers = this.lane.mode === 'quadratic_spec' || Number.isFinite(this.lane.request.remask_bound ?? NaN);
    this.strip.draw(forward, this.width, position, towers);
  }
}

function nameOf(content, index, forward, lane) {
  if (index >= forward.chain || content === 'mask') return 'a mask';
  return content === null ? 'a cell that the trace does not show' : `“${cellText(lane.piece(content))}”`;
}

export const PATTERN = { id: 'pattern', title: 'Attention & KV cache', fits: (lane) => !lane.remote, make: (context) => new Pattern(context) };
