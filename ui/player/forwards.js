// What each forward of a run read, what its queries saw, and what it left in the KV cache: derived from the trace
// alone, and held by a test against what the model is really asked (tests/ui/player/test_pattern.py).
//
// A forward's inputs stand in the order in which the model reads them; all of them see the whole cached prefix,
// and `regions` says what they see of one another.

import { Shadows, doubts } from './shadows.js';

const EMITTING = new Set(['accept', 'bonus', 'pin']);

/** The forwards of one lane, worked out once each and in order; new steps may come at any time. */
export class Forwards {
  constructor(lane) {
    this.lane = lane;
    this.shadows = new Shadows(lane.mode, lane.request, lane.start);
    this.known = [];
    this.textEnd = Infinity; // of a draft that is revised: what stands behind it is padding
  }

  /** The forward of step `index`, or null where there is none. */
  at(index) {
    const { steps } = this.lane;
    while (this.known.length <= Math.min(index, steps.length - 1)) this.known.push(this.next(steps[this.known.length]));
    return this.known[index] ?? null;
  }

  next(step) {
    const last = this.known.at(-1);
    const before = last?.after ?? 0;
    const shape = shapeOf(this.lane, step, this.shadows.next(step));
    if (this.lane.mode === 'refine' && step.phase === 'commit') [, this.textEnd] = step.span;
    const computed = countOf(shape);
    return Object.freeze({
      phase: step.phase,
      ...shape,
      reach: Math.min(shape.reach, this.textEnd),
      count: computed,
      before,
      kept: Math.max(0, shape.after - shape.prefix),
      // over the run, this forward included
      computedSoFar: (last?.computedSoFar ?? 0) + computed,
    });
  }
}

/**
 * A forward as data: `prefix` positions are read from the cache and followed by `chain` inputs from position
 * `start` on. `pattern` is how the chain sees itself: `causal` or `bidirectional`. Behind the chain may come
 * `groups` times `group` masks, one group behind each of the chain's last inputs (quadratic self-speculation), or
 * one shadow for each of `shadows` (positions; null: the trace does not tell). The first `written` inputs are
 * written into the cache, which then holds `after` positions. Cells from position `reach` on are context that the
 * trace does not show.
 */
function shapeOf({ mode, start: prompt, request }, step, shadows) {
  const [start, end] = step.span;
  const size = request.block_length ?? 1;
  const causal = (prefix, chain, after, purpose) => ({ ...PLAIN, pattern: 'causal', purpose, start: prefix, prefix, chain, written: chain, after });
  const looking = (prefix, chain, purpose) => ({ ...PLAIN, pattern: 'bidirectional', purpose, start: prefix, prefix, chain, shadows, after: prefix });

  if (mode === 'quadratic_spec') {
    if (step.phase === 'prefill') return { ...causal(0, prompt, prompt, 'prefill'), groups: 1, group: size };
    const chain = Math.max(1, end - start - size);
    return { ...causal(start, chain, start + emitted(step), 'verify'), groups: chain, group: size };
  }
  if (mode === 'infill' && step.phase !== 'prefill') return gapShape(step, size, causal, looking);
  switch (step.phase) {
    case 'prefill':
    case 'ar':
      return causal(start, end - start, end, step.phase);
    case 'verify':
      return causal(start, end - start, start + emitted(step), 'verify');
    case 'commit':
      return doubts(step) ? causal(start, end - start, start, 'doubt') : causal(start, end - start, end, 'commit');
    default:
      return looking(start, end - start, step.phase);
  }
}

const PLAIN = Object.freeze({ groups: 0, group: 0, shadows: Object.freeze([]), written: 0, reach: Infinity });

/** Fill in the middle: a gap's block begins at the token before the gap, which is taken out of the cache for it. */
function gapShape(step, size, causal, looking) {
  const [start, end] = step.span;
  if (step.phase === 'commit') {
    const given = step.events.some((event) => event.kind === 'pin');
    return given ? causal(start, end - start, end, 'given') : causal(start - 1, end - start + 1, end, 'gap');
  }
  if (step.phase === 'verify' && step.scores?.length) {
    return { ...causal(start - 1, end - start + 1, start - 1, 'score'), written: 0 };
  }
  if (step.phase === 'verify') return { ...looking(start - 1, size, 'try'), reach: start };
  return { ...looking(start - 1, size, 'fill'), reach: end };
}

const emitted = (step) => step.events.reduce((n, event) => n + EMITTING.has(event.kind), 0);
const countOf = ({ chain, groups, group, shadows }) => chain + groups * group + (shadows?.length ?? 0);

/** Position of input `index`. */
export function positionOf(forward, index) {
  const { start, chain, groups, group, shadows } = forward;
  if (index < chain) return start + index;
  if (!group) return shadows[index - chain];
  const { opener, depth } = placeInGroup(forward, index);
  return start + opener + depth;
}

/** Of a mask in a group: the input that opens its group, and its place in it, from 1. */
export function placeInGroup({ chain, groups, group }, index) {
  const number = Math.floor((index - chain) / group);
  return { number, opener: chain - groups + number, depth: ((index - chain) % group) + 1 };
}

/**
 * What inputs see of one another: rows [a, b) see keys [c, d); in a region of `stairs` (which is square) row
 * a + i sees only keys up to c + i.
 */
export function regions(forward) {
  const { chain, groups, group, shadows, pattern } = forward;
  const found = [{ rows: [0, chain], keys: [0, chain], stairs: pattern === 'causal' }];
  for (let number = 0; number < groups; number += 1) {
    const first = chain + number * group;
    const rows = [first, first + group];
    found.push({ rows, keys: [0, chain - groups + number + 1], stairs: false }, { rows, keys: rows, stairs: false });
  }
  (shadows ?? []).forEach((position, number) => {
    const rows = [chain + number, chain + number + 1];
    const cell = position - forward.start;
    for (const keys of [[0, cell], [cell + 1, chain], rows]) if (keys[1] > keys[0]) found.push({ rows, keys, stairs: false });
  });
  return found;
}

/** The inputs that input `query` sees, as ascending ranges [from, to). */
export function sees(forward, query) {
  return regions(forward)
    .filter(({ rows }) => query >= rows[0] && query < rows[1])
    .map(({ rows, keys, stairs }) => (stairs ? [keys[0], keys[0] + query - rows[0] + 1] : keys));
}

/** What became of every position that this forward computed: {position, written, kept, discarded}, ascending. */
export function ledger(forward) {
  const found = new Map();
  for (let index = 0; index < forward.count; index += 1) {
    const position = positionOf(forward, index);
    if (!found.has(position)) found.set(position, { position, written: false, kept: false, discarded: 0 });
    const entry = found.get(position);
    if (index < forward.written) {
      entry.written = true;
      entry.kept = position < forward.after;
    } else entry.discarded += 1;
  }
  return [...found.values()].sort((a, b) => a.position - b.position);
}

/**
 * What stood at an input: a token id, 'mask', or null where the trace does not tell. `before` is the canvas
 * before the step (Map of position to cell), `prompt` the prompt's ids.
 */
export function contentOf(forward, index, { step, before, prompt }) {
  if (index >= forward.chain) return 'mask';
  const position = positionOf(forward, index);
  if (position < prompt.length) return prompt[position];
  if (forward.purpose === 'score' && index > 0) return step.scores.find((score) => score.position === position)?.token ?? null;
  if (position >= forward.reach) return null;
  const given = step.events.filter((event) => event.position === position && stoodThere(event, step)).at(-1);
  if (given) return given.token;
  const cell = before.get(position);
  return cell && cell.token !== null && cell.status !== 'rejected' ? cell.token : 'mask';
}

/** Whether an event says what a forward was given, and not what came of it. */
function stoodThere({ kind, position }, { phase, span }) {
  if (kind === 'pin') return phase === 'denoise' || phase === 'revise' || phase === 'commit';
  // Revision opens a block with its draft, of which the first cell may have been replaced already.
  return phase === 'commit' && (kind === 'draft' || (kind === 'seed' && position === span[0]));
}
