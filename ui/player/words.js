// The words and number formats of the interface, so that one thing has one name everywhere.

const MODES = new Map([
  ['ar', 'Autoregressive'],
  ['diffusion', 'Block diffusion'],
  ['linear_spec', 'Self-speculation'],
  ['quadratic_spec', 'Quadratic self-speculation'],
  ['refine', 'Revision of a draft'],
  ['infill', 'Fill in the middle'],
  ['remote', 'Remote'],
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

/** What a cell's status is called. */
export const STATUS_NAMES = {
  empty: 'not reached yet',
  masked: 'masked',
  seed: 'seed',
  committed: 'committed',
  draft: 'draft',
  accepted: 'accepted draft',
  rejected: 'rejected',
  bonus: 'bonus',
  pinned: 'pinned',
};

export const modeName = (mode) => MODES.get(mode) ?? String(mode);

/** What a request asks for, in words; of a server's answer, which server it was. */
export const requestName = ({ mode, remote }) => (mode === 'remote' ? `${modeName(mode)} · ${remote}` : modeName(mode));
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
  if (step.phase === 'chunk') return [`chunk ${index + 1} of ${total}`, plural(step.events.length, 'piece'), duration(took)].join(' · ');
  const block = step.phase !== 'prefill' && step.phase !== 'ar' && step.block >= 0 ? [`block ${step.block + 1}`] : [];
  return [`step ${index + 1} of ${total}`, step.phase, ...block, whatHappened(step), duration(took)].join(' · ');
}

const short = (value) => String(Number(Number(value).toPrecision(6)));

/** The settings of a request that say something, the most telling first; ui/naming.py says the same in Python. */
export function laneParts(request) {
  const { mode, policy, steps, threshold } = request;
  const parts = [];
  if (['diffusion', 'refine', 'infill'].includes(mode)) {
    if (policy === 'entropy_budget') parts.push(`entropy budget ${short(request.entropy_bound ?? 0)}`);
    else if (policy === 'margin') parts.push(`margin ${short(request.margin_bound ?? 0)}`);
    else if (policy === 'sampler') parts.push(threshold == null ? 'learned sampler' : `learned sampler ${short(threshold)}`);
    else if (policy === 'leftmost') parts.push(steps == null ? 'leftmost first' : `leftmost first, ${steps} steps`);
    else parts.push(steps == null ? `threshold ${short(threshold ?? 0.9)}` : `${steps} steps a block`);
    if (request.revise_rounds) parts.push(request.revise_rank == null ? `revised at ${short(request.revise_bound ?? 0.1)}` : `revised at rank ${request.revise_rank}`);
    if (request.remask_bound != null) parts.push(`reopened at ${short(request.remask_bound)}`);
  }
  if (mode === 'linear_spec') {
    if (threshold != null) parts.push(`draft threshold ${short(threshold)}`);
    if ((request.verification ?? 'match') !== 'match') parts.push('ratio verification');
    if (request.adaptive_block) parts.push('adaptive block');
    if (request.adapter === false) parts.push('no adapter');
  }
  if (mode !== 'ar' && mode !== 'remote') parts.push(`block ${request.block_length ?? 16}`);
  if (request.temperature) parts.push(`temperature ${short(request.temperature)}`, `seed ${request.seed ?? 0}`);
  return parts;
}

/** The last two parts of a checkpoint's name. */
export const modelName = (model) => String(model?.id ?? '').split(/[\\/]/).filter(Boolean).slice(-2).join('/');

/** What tells a lane from the others: its mode, what only it does among the lanes of that mode, its model. */
export function laneName(lane, all) {
  const lanes = all.filter(Boolean);
  const { parent } = lane.head;
  if (parent?.label && lanes.some((other) => other.head.id === parent.trace)) return `Child · step ${parent.step + 1}: ${parent.label}`;
  if (lanes.some((other) => other.head.parent?.label && other.head.parent.trace === lane.head.id)) return 'Parent';
  const alike = lanes.filter((other) => requestName(other.request) === requestName(lane.request));
  const parts = laneParts(lane.request).filter((part) => alike.some((other) => !laneParts(other.request).includes(part)));
  const several = !lane.remote && new Set(lanes.filter((other) => !other.remote).map((other) => other.head.model?.id)).size > 1;
  const signature = (other) => JSON.stringify([other.head.model?.id, laneParts(other.request)]);
  const twins = alike.filter((other) => signature(other) === signature(lane));
  const place = twins.length > 1 ? [`no. ${twins.indexOf(lane) + 1}`] : [];
  return [requestName(lane.request), ...parts, ...(several ? [modelName(lane.head.model)] : []), ...place].join(' · ');
}

const NUMBERS = ['No', 'One', 'Two', 'Three', 'Four'];

/** What a race is between: "Three modes, one model". */
export function raceTitle(lanes, total) {
  const modes = new Set(lanes.map((lane) => lane.mode)).size;
  const models = new Set(lanes.map((lane) => lane.head.model?.id)).size;
  const what = lanes.length === total && modes === total && !lanes.some((lane) => lane.remote) ? 'modes' : 'lanes';
  return `${NUMBERS[total] ?? total} ${what}, ${models > 1 ? `${NUMBERS[models].toLowerCase()} models` : 'one model'}`;
}

/** One line about one moment of a race. */
export function raceSentence(lanes, steps, track, index) {
  const afar = lanes.some((lane) => lane?.remote);
  const counted = (lane, n) => (afar ? plural(n, lane.remote ? 'chunk' : 'forward') : n);
  const counts = lanes.map((lane, i) => lane && `${counted(lane, steps[i] + 1)} by ${laneName(lane, lanes)}`).filter(Boolean);
  const last = track.length - 1;
  const where = track.byTime ? `${duration(track.time(index))} of ${duration(track.time(last))}` : `${index} of ${plural(last, afar ? 'step' : 'forward')}`;
  return `${where} · ${afar ? '' : 'forwards: '}${counts.join(', ')}`;
}

/** What clock a race is shown by, and how it was run. */
export function raceNote(complete, speed, lanes) {
  const saved = lanes.filter((lane) => lane.tail?.opened);
  const remote = lanes.filter((lane) => lane.remote);
  const devices = new Set(lanes.filter((lane) => !saved.includes(lane) && !remote.includes(lane)).map((lane) => lane.head.model?.device));
  const [device] = devices;
  // Lanes that run one after another are open one at a time.
  const together = lanes.some((lane) => lane.tail?.environment?.batch > 1) || lanes.filter((lane) => !lane.tail).length > 1;
  const where = devices.size === 1 && device ? `the same device (${device})` : 'the same device';
  if (!complete && together) return `Running live as one batch: the lanes share every forward on ${where}.`;
  if (!complete) return `Running live: the lanes run one after another${remote.length ? '' : ` on ${where}`}, then replay together.`;
  const afar = remote.map((lane) => ` ${laneName(lane, lanes)} ran on a server, as the client saw it: chunks of a stream at their arrival, nothing of its forwards.`).join('');
  const clock = speed.rate === null ? `one forward ${afar ? 'or chunk ' : ''}per tick, not by the clock` : `${speed.label} on the measured clock`;
  const earlier = saved.map((lane) => ` ${laneName(lane, lanes)} is a saved trace with the times of its own run${lane.head.model?.device ? ` (${lane.head.model.device})` : ''}.`);
  if (together) return `Replay: ${clock}. The lanes ran as one batch on ${where}: they share every forward, and every time is the batch’s.`;
  if (afar) return `Replay: ${clock}. The lanes ran one after another; each lane’s time counts from its own start.${afar}${earlier.join('')}`;
  return `Replay: ${clock}. The lanes ran one after another on ${where}; each lane’s time counts from its own start.${earlier.join('')}`;
}
