// What happened to one position: every forward that looked at it, the tokens it considered, and the moments at
// which the cell changed.

import { dataOf, EMPTY, MASKED, REMASKED, REVISED, STATUS } from './map_data.js';

const RIVALS = 4; // lines besides the written token's
const EMITTED = new Set(['seed', 'committed', 'accepted', 'bonus', 'pinned']);

/** Whether a forward predicted the cell: what it says of a token that it could read is no prediction. */
function wasAsked(data, column, step) {
  const status = (row) => {
    const change = data.changeAt(column, row);
    return change < 0 ? 'empty' : STATUS[data.status.at(change)];
  };
  return !EMITTED.has(status(step - 1)) || !EMITTED.has(status(step));
}

/** {looks, series, moments, first, last, written} of a position, or null when the run never reached it. */
export function storyOf(lane, position) {
  const data = dataOf(lane);
  const column = position - lane.start;
  const changes = data.changes[column] ?? [];
  const looks = (data.looks[column] ?? []).map((index) => {
    const step = data.lookStep.at(index);
    return { step, entropy: data.lookEntropy.at(index), cell: data.lookCell[index], asked: wasAsked(data, column, step) };
  });
  if (!changes.length && !looks.length) return null;
  const moments = changes.map((index) => momentOf(lane, data, position, index)).filter(Boolean);
  const written = moments.findLast((moment) => EMITTED.has(moment.status))?.token ?? looks.at(-1)?.cell.ids[0] ?? moments.at(-1)?.token ?? null;
  const steps = [...looks.map((look) => look.step), ...moments.map((moment) => moment.step)];
  const first = Math.min(...(steps.length ? steps : [0]));
  const last = Math.max(...(steps.length ? steps : [0]));
  return { looks, series: seriesOf(looks, written), moments, first, last, written };
}

function momentOf(lane, data, position, index) {
  const code = data.status.at(index);
  const marks = data.marks.at(index);
  if (code === EMPTY || (code === MASKED && !(marks & REMASKED))) return null;
  const step = data.step.at(index);
  const token = data.token.at(index);
  const from = marks & REVISED ? lane.revisions.at(position, step).from : null;
  return { step, status: STATUS[code], token: token < 0 ? null : token, from, confidence: data.confidence.at(index) };
}

/** The written token first, then its strongest rivals: [{token, points: [{step, asked, probability or null}]}]. */
function seriesOf(looks, written) {
  const best = new Map();
  for (const { cell, asked } of looks) if (asked) cell.ids.forEach((id, n) => best.set(id, Math.max(best.get(id) ?? 0, cell.probabilities[n])));
  const rivals = [...best].filter(([id]) => id !== written).sort((a, b) => b[1] - a[1]).slice(0, RIVALS).map(([id]) => id);
  const points = (token) => looks.map(({ step, cell, asked }) => ({ step, asked, probability: cell.probabilities[cell.ids.indexOf(token)] ?? null }));
  return [written, ...rivals].filter((token) => token !== null).map((token) => ({ token, points: points(token) }));
}
