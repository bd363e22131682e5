// The map in words: one sentence about one tile, one about the whole.

import { EMPTY, MASKED, STATUS } from './map_data.js';
import { cellText } from './pieces.js';
import { STATUS_NAMES, modeName, number, plural } from './words.js';

const quoted = (lane, token) => `“${cellText(lane.piece(token))}”`;

/** What a tile shows, for eyes and screen readers. */
export function tileSentence(data, findings, column, row) {
  const { lane } = data;
  const position = lane.start + column;
  const tile = data.tile(column, row);
  const parts = [`step ${row + 1}, ${data.phases[row]}`, `answer ${column + 1} (position ${position})`];
  if (tile.token !== null) parts.push(quoted(lane, tile.token));
  const since = tile.since < 0 || tile.since === row ? '' : ` since step ${tile.since + 1}`;
  parts.push(`${STATUS_NAMES[tile.status]}${since}`);
  if (Number.isFinite(tile.confidence) && tile.status !== 'masked') parts.push(`confidence ${number(tile.confidence)}`);
  const look = data.lookAt(column, row);
  const entropy = look >= 0 ? data.lookEntropy.at(look) : tile.entropy;
  if (Number.isFinite(entropy)) parts.push(`entropy ${number(entropy)} nats`);
  if (tile.status === 'masked' && look >= 0) {
    const seen = data.lookCell[look];
    if (seen.ids?.length) parts.push(`most probable ${quoted(lane, seen.ids[0])} ${number(seen.probabilities[0])}`);
  }
  const revision = tile.token === null ? null : lane.revisions.at(position, row);
  if (revision) parts.push(`revised in step ${revision.step + 1}, before ${quoted(lane, revision.from)}`);
  const wrong = findings.wrong.find((note) => note.position === position && note.step === row);
  if (wrong) parts.push(wrongSentence(lane, wrong));
  const regret = tile.token === null ? null : findings.regret?.get(column);
  if (regret) parts.push(`causal regret ${number(regret.nats)} nats`);
  return parts.join(' · ');
}

function wrongSentence(lane, note) {
  const odds = `${number(note.alternative_probability)} against ${number(note.probability)}`;
  return `wrong commit: one cell at a time it would have become ${quoted(lane, note.alternative)} (${odds})`;
}

/** The whole map in a sentence. */
export function mapSentence(data, findings, row) {
  const { lane } = data;
  const counts = new Map();
  for (let column = 0; row >= 0 && column < data.columns; column += 1) {
    const change = data.changeAt(column, row);
    const code = change < 0 ? EMPTY : data.status.at(change);
    counts.set(code, (counts.get(code) ?? 0) + 1);
  }
  const now = [...counts].filter(([code]) => code >= MASKED).sort((a, b) => b[1] - a[1]).map(([code, n]) => `${n} ${STATUS_NAMES[STATUS[code]]}`);
  const parts = [`Map of ${plural(data.columns, 'position')} by ${plural(data.rows, 'step')}, ${modeName(lane.mode)}`];
  if (now.length) parts.push(`at step ${row + 1}: ${now.join(', ')}`);
  if (data.remasks) parts.push(plural(data.remasks, 'remask'));
  if (data.revisions) parts.push(plural(data.revisions, 'revision'));
  if (findings.wrong.length) parts.push(plural(findings.wrong.length, 'wrong commit'));
  return parts.join('; ');
}
