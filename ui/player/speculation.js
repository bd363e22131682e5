// Cycles of self-speculation, read off the verify steps of a lane: what was drafted, what the causal pass made of
// it, what was emitted. Rates of whole runs come from Python (metrics.py); here are only counts.

import { isSpecial } from './pieces.js';

export const SPECULATIVE = new Set(['linear_spec', 'quadratic_spec']);

/**
 * The cycles among `steps`, in order. Each has its `step` (the verify step's index), `opening` (the first step of
 * the cycle), `start` (position of the pending token), `pending` (its id, or null), `length` (tokens emitted, the
 * bonus included) and `cells`, one for every position behind the pending one:
 * {draft, verdict, emitted}. Verdicts: `accepted`, `refused` (the first that the causal pass did not choose),
 * `dropped` (behind it, or behind the end of the text: never judged), `bonus` (no draft stood there).
 */
export function cyclesOf(steps) {
  const cycles = [];
  let opening = 0;
  let pending = null;
  steps.forEach((step, index) => {
    if (step.phase === 'prefill') {
      pending = step.events.find(({ kind }) => kind === 'seed' || kind === 'pin')?.token ?? null;
      opening = index + 1;
    }
    if (step.phase !== 'verify') return;
    const [start] = step.span;
    const cells = new Map();
    const at = (position) => {
      if (!cells.has(position)) cells.set(position, { draft: null, verdict: 'bonus', emitted: null });
      return cells.get(position);
    };
    let length = 0;
    let last = pending;
    for (const { kind, position, token } of step.events) {
      const cell = at(position);
      if (kind === 'accept') Object.assign(cell, { draft: token, verdict: 'accepted', emitted: token });
      else if (kind === 'reject') Object.assign(cell, { draft: token, verdict: 'dropped' });
      else if (kind === 'bonus' || kind === 'pin') {
        cell.emitted = token;
        if (cell.draft !== null) cell.verdict = 'refused';
      } else {
        // Quadratic self-speculation drafts the next block in the same step: no part of this cycle.
        if (cell.draft === null && cell.emitted === null) cells.delete(position);
        continue;
      }
      if (kind !== 'reject') {
        length += 1;
        last = token;
      }
    }
    const ends = [...cells.keys()];
    const reach = ends.length ? Math.max(...ends) - start : 0;
    const row = Array.from({ length: reach }, (_, i) => cells.get(start + 1 + i) ?? { draft: null, verdict: 'none', emitted: null });
    cycles.push({ number: cycles.length, step: index, opening, start, pending, length, cells: row });
    pending = last;
    opening = index + 1;
  });
  return cycles;
}

/** The cycle that step `index` belongs to, or -1. */
export function cycleAt(cycles, index) {
  let low = 0;
  let high = cycles.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (cycles[middle].step < index) low = middle + 1;
    else high = middle;
  }
  return cycles[low]?.opening <= index ? low : -1;
}

/** How many cycles emitted n tokens, as counts[n] for n from 0 to `longest`. */
export function histogram(cycles, longest) {
  const counts = Array(longest + 1).fill(0);
  for (const { length } of cycles) counts[Math.min(length, longest)] += 1;
  return counts;
}

/** The longest acceptance there can be: the block length, or more where a run shows more. */
export function longestOf(cycles, request) {
  return cycles.reduce((most, { length }) => Math.max(most, length), request.block_length ?? 1);
}

/** Mean acceptance length of the cycles up to each. */
export function runningMean(cycles) {
  let sum = 0;
  return cycles.map(({ length }, i) => (sum += length) / (i + 1));
}

const MARKS = /[{}[\]<>=+*/\\|&^%$#@~`_]|":|\);|::|->/;

/** What kind of text a token is: one of CLASSES. */
export function tokenClass(piece) {
  if (isSpecial(piece)) return 'special';
  if (/^\s*$/.test(piece)) return 'whitespace';
  if (/^\s*[\p{N}][\p{N}.,:]*\s*$/u.test(piece)) return 'digits';
  if (MARKS.test(piece)) return 'code';
  if (/[\p{L}\p{M}\p{N}]/u.test(piece)) return 'words';
  return 'punctuation';
}

export const CLASSES = [
  ['words', 'words'],
  ['digits', 'digits'],
  ['punctuation', 'punctuation'],
  ['code', 'code, markup'],
  ['whitespace', 'spaces, newlines'],
  ['special', 'special tokens'],
];

/**
 * Drafts by class of their text: {id, drafted, judged, accepted}, for classes that occur. A draft is judged when
 * every draft before it was accepted; those behind the first refusal are dropped unseen.
 */
export function byClass(cycles, piece) {
  const tally = new Map();
  for (const { cells } of cycles) {
    for (const { draft, verdict } of cells) {
      if (draft === null) continue;
      const id = tokenClass(piece(draft));
      if (!tally.has(id)) tally.set(id, { id, drafted: 0, judged: 0, accepted: 0 });
      const entry = tally.get(id);
      entry.drafted += 1;
      if (verdict !== 'dropped') entry.judged += 1;
      if (verdict === 'accepted') entry.accepted += 1;
    }
  }
  return CLASSES.filter(([id]) => tally.has(id)).map(([id]) => tally.get(id));
}

const PHASES = ['prefill', 'draft', 'verify', 'commit'];

/** Seconds by phase, [phase, seconds], for phases that ran: Python's figures where there are any. */
export function timeShares(lane) {
  const known = lane.metrics?.time_by_phase;
  const spent = known ? { ...known } : {};
  if (!known) lane.steps.forEach((step, i) => { spent[step.phase] = (spent[step.phase] ?? 0) + (lane.timeAt(i) - lane.timeAt(i - 1)) / 1e9; });
  return PHASES.filter((phase) => spent[phase] > 0).map((phase) => [phase, spent[phase]]);
}

const KNOBS = [
  ['model', (request, head) => String(head.model?.id ?? '').split(/[\\/]/).filter(Boolean).at(-1) ?? null],
  ['adapter', (request, head) => (head.model?.adapter === false ? null : request.adapter === false ? 'without adapter' : 'with adapter')],
  ['block_length', (request) => `B = ${request.block_length}`],
  ['threshold', (request) => (request.threshold ? `threshold ${request.threshold}` : 'one draft step')],
  ['adaptive_block', (request) => (request.adaptive_block ? 'adaptive block' : 'fixed block')],
  ['verification', (request) => `by ${request.verification ?? 'match'}`],
  ['temperature', (request) => `T = ${request.temperature ?? 0}`],
  ['seed', (request) => `seed ${request.seed ?? 0}`],
];

/** A name for every lane (there may be holes): its mode, and the settings in which it differs from others of that mode. */
export function laneNames(lanes, modeName) {
  return lanes.map((lane, number) => {
    const alike = lanes.filter((other) => other?.mode === lane.mode);
    if (alike.length < 2) return modeName(lane.mode);
    const differing = KNOBS.filter(([, say]) => new Set(alike.map((other) => say(other.request, other.head))).size > 1);
    const said = differing.map(([, say]) => say(lane.request, lane.head)).filter(Boolean);
    const twin = alike.some((other) => other !== lane && differing.every(([, say]) => say(other.request, other.head) === say(lane.request, lane.head)));
    return [modeName(lane.mode), ...said, ...(twin ? [`lane ${number + 1}`] : [])].join(', ');
  });
}
