// The words and number formats of the interface, so that one thing has one name everywhere.

const MODES = new Map([
  ['ar', 'Autoregressive'],
  ['diffusion', 'Block diffusion'],
  ['linear_spec', 'Self-speculation'],
  ['quadratic_spec', 'Quadratic self-speculation'],
  ['refine', 'Revision of a draft'],
  ['infill', 'Fill in the middle'],
]);
const ENDINGS = new Map([
  ['eos', 'finished: end token'],
  ['length', 'finished: token limit'],
  ['cancelled', 'stopped'],
  ['deadline', 'out of time'],
  ['error', 'failed'],
]);
const KINDS = [
  ['seed', 'seed', 'seeds'],
  ['commit', 'commit', 'commits'],
  ['remask', 'remask', 'remasks'],
  ['draft', 'draft', 'drafts'],
  ['accept', 'accepted', 'accepted'],
  ['reject', 'rejected', 'rejected'],
  ['bonus', 'bonus', 'bonuses'],
  ['pin', 'pinned', 'pinned'],
];

export const modeName = (mode) => MODES.get(mode) ?? String(mode);
export const ending = (reason) => ENDINGS.get(reason) ?? String(reason ?? '');

/** A number with at most `digits` decimals; a dash where there is none. */
export function number(value, digits = 2) {
  return Number.isFinite(value) ? value.toFixed(digits) : '–';
}

/** A whole number with thin spaces between thousands. */
export function count(value) {
  return Number.isFinite(value) ? Math.round(value).toString().replace(/\B(?=(\d{3})+$)/g, '\u2009') : '–';
}

/** Nanoseconds in the unit that reads best. */
export function duration(ns) {
  if (!Number.isFinite(ns)) return '–';
  const ms = ns / 1e6;
  if (ms < 1) return `${ms.toFixed(2)} ms`;
  if (ms < 1000) return `${ms.toFixed(1)} ms`;
  return `${(ms / 1000).toFixed(2)} s`;
}

export const seconds = (value) => (Number.isFinite(value) ? duration(value * 1e9) : '–');
export const percent = (value) => (Number.isFinite(value) ? `${(value * 100).toFixed(value > 0.999 && value < 1 ? 2 : 1)} %` : '–');
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

/** What a step did: "3 commits", or "4 accepted, 1 bonus, 3 rejected". */
export function whatHappened(step) {
  const counts = new Map();
  for (const event of step.events) counts.set(event.kind, (counts.get(event.kind) ?? 0) + 1);
  const parts = KINDS.filter(([kind]) => counts.has(kind)).map(([kind, one, many]) => plural(counts.get(kind), one, many));
  return parts.join(', ') || 'nothing settled';
}

/** One line about one step, the same for eyes and for screen readers. */
export function stepSentence(steps, index) {
  const total = steps.length;
  if (index < 0 || !total) return total ? `before the first of ${plural(total, 'step')}` : 'waiting for the first step';
  const step = steps[index];
  const took = step.elapsed_ns - (index ? steps[index - 1].elapsed_ns : 0);
  const block = step.phase !== 'prefill' && step.phase !== 'ar' && step.block >= 0 ? [`block ${step.block + 1}`] : [];
  return [`step ${index + 1} of ${total}`, step.phase, ...block, whatHappened(step), duration(took)].join(' · ');
}

/** One line about one moment of a race. */
export function raceSentence(lanes, steps, track, index) {
  const counts = lanes.map((lane, i) => lane && `${modeName(lane.mode)} ${steps[i] + 1}`).filter(Boolean);
  const last = track.length - 1;
  const where = track.byTime ? `${duration(track.time(index))} of ${duration(track.time(last))}` : `${index} of ${plural(last, 'forward')}`;
  return `${where} · forwards: ${counts.join(', ')}`;
}

/** What clock a race is shown by, and how it was run. */
export function raceNote(complete, speed, device) {
  const where = device ? `the same device (${device})` : 'the same device';
  if (!complete) return `Running live: the modes run one after another on ${where}, then replay together.`;
  const clock = speed.rate === null ? 'one forward per tick, not by the clock' : `${speed.label} on the measured clock`;
  return `Replay: ${clock}. The modes ran one after another on ${where}; each lane’s time counts from its own start.`;
}
