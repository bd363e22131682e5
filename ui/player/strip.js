// The KV cache as a strip of positions: what was there, what this forward adds, what it throws away. A position
// that a forward computes several times (quadratic self-speculation) stands as a tower.

import { el } from './dom.js';
import { ledger } from './forwards.js';
import { fateSentence } from './forwardwords.js';
import { box, svg } from './svg.js';
import { count } from './words.js';

const BASE = 22; // px of the strip itself
const TOWER = 46; // px that what is thrown away may pile up to
const WIDEST = 24; // px of one position
const SEPARATE = 6; // px from which positions are told apart
const FATES = [
  ['cached', 'in the cache'],
  ['kept', 'written now, kept'],
  ['cropped', 'written, then cropped'],
  ['gone', 'thrown away after this step'],
];

/** What became of a position: kept, cropped or gone. */
export const fateOf = ({ written, kept }) => (kept ? 'kept' : written ? 'cropped' : 'gone');

let made = 0;

export class Strip {
  constructor() {
    made += 1;
    this.hatch = `ndp-kv-hatch-${made}`; // names are the page's, and another player's may be hidden
    this.plot = svg('svg', 'ndp-kv-plot', { role: 'img' });
    this.legend = el('div', 'ndp-kv-legend', {}, ...FATES.map(([fate, name]) => el('span', '', { 'data-fate': fate }, this.sample(fate), name)));
    this.element = el('div', 'ndp-kv', {}, this.plot, this.legend);
  }

  /** Draw the cache around `forward` into `width` px; `position`, if any, is marked; `tall` keeps room for towers. */
  draw(forward, width, position, tall) {
    const entries = ledger(forward);
    const cachedWidth = forward.prefix ? Math.min(width * 0.4, Math.max(44, forward.prefix * 3)) : 0;
    const wide = Math.min(WIDEST, (width - cachedWidth - 2) / Math.max(1, entries.length));
    const most = Math.max(1, ...entries.map((entry) => entry.discarded));
    const towers = tall || most > 1 || entries.some((entry) => entry.discarded && entry.written);
    const ground = towers ? TOWER + 4 : 2;
    const parts = [];
    if (forward.prefix) {
      parts.push(this.cell('cached', box(1, ground, cachedWidth - 3, BASE), `positions 0 to ${forward.prefix - 1}: in the cache`));
      parts.push(svg('text', 'ndp-kv-count', { x: cachedWidth / 2, y: ground + 15, 'text-anchor': 'middle', text: count(forward.prefix) }));
    }
    const x = (i) => cachedWidth + i * wide;
    for (const run of runsOf(entries, wide)) {
      const fate = fateOf(run.entries[0]);
      const title = run.entries.length > 1 ? `positions ${run.entries[0].position} to ${run.entries.at(-1).position}: ${FATES.find(([name]) => name === fate)[1]}` : fateSentence(run.entries[0]);
      const across = wide * run.entries.length - (wide >= SEPARATE ? 2 : 0);
      parts.push(this.cell(fate, box(x(run.from), ground, Math.max(0.5, across), BASE), title));
      if (across >= 10) parts.push(...glyph(fate, x(run.from) + across / 2, ground + BASE / 2));
    }
    if (towers) {
      entries.forEach((entry, i) => {
        const piled = entry.written ? entry.discarded : entry.discarded - 1;
        if (piled < 1) return;
        const high = Math.max(2, (TOWER * piled) / most);
        parts.push(this.cell('gone', box(x(i), ground - 2 - high, Math.max(0.5, wide - (wide >= SEPARATE ? 2 : 0)), high), fateSentence(entry)));
      });
    }
    const marked = entries.findIndex((entry) => entry.position === position);
    if (marked >= 0) parts.push(svg('path', 'ndp-kv-mark', { d: box(x(marked) - 1, ground - 1, Math.max(2, wide), BASE + 2) }));
    const first = entries[0]?.position ?? 0;
    parts.push(svg('text', 'ndp-kv-number', { x: cachedWidth + 1, y: ground + BASE + 14, text: String(first) }));
    if (entries.length * wide > 70) parts.push(svg('text', 'ndp-kv-number', { x: x(entries.length) - 2, y: ground + BASE + 14, 'text-anchor': 'end', text: String(entries.at(-1).position) }));
    if (forward.prefix && cachedWidth > 60) parts.push(svg('text', 'ndp-kv-number', { x: 1, y: ground + BASE + 14, text: '0' }));
    this.plot.setAttribute('width', String(width));
    this.plot.setAttribute('height', String(ground + BASE + 18));
    const tally = (fate) => entries.filter((entry) => fateOf(entry) === fate).length;
    const said = FATES.slice(1).map(([fate, name]) => [tally(fate), name]).filter(([n]) => n).map(([n, name]) => `${n} ${name}`);
    this.plot.setAttribute('aria-label', `KV cache: ${[`${forward.prefix} in the cache`, ...said].join(', ')}`);
    this.plot.replaceChildren(this.hatching(), ...parts);
  }

  cell(fate, d, title) {
    const node = svg('path', 'ndp-kv-cell', { 'data-fate': fate, d, fill: fate === 'gone' ? `url(#${this.hatch})` : null });
    if (title) node.append(svg('title', '', { text: title }));
    return node;
  }

  /** The hatching of what is thrown away, for the strip and its legend. */
  hatching() {
    const stroke = svg('path', 'ndp-kv-stroke', { d: 'M0 2.5H5' });
    return svg('defs', '', {}, svg('pattern', '', { id: this.hatch, width: 5, height: 5, patternUnits: 'userSpaceOnUse', patternTransform: 'rotate(-45)' }, stroke));
  }

  sample(fate) {
    return svg('svg', '', { width: 18, height: 16, 'aria-hidden': 'true' }, this.cell(fate, box(1, 1, 16, 14)), ...glyph(fate, 9, 8));
  }
}

/** Neighbours of one fate share a shape where positions are too narrow to be told apart. */
function runsOf(entries, wide) {
  const runs = [];
  entries.forEach((entry, i) => {
    const last = runs.at(-1);
    if (last && wide < SEPARATE && fateOf(last.entries[0]) === fateOf(entry)) last.entries.push(entry);
    else runs.push({ from: i, entries: [entry] });
  });
  return runs;
}

function glyph(fate, x, y) {
  if (fate === 'kept') return [svg('path', 'ndp-kv-glyph', { 'data-fate': fate, d: `M${x - 4} ${y}h8M${x} ${y - 4}v8` })];
  if (fate === 'cropped') return [svg('path', 'ndp-kv-glyph', { 'data-fate': fate, d: `M${x - 4} ${y - 4}l8 8M${x + 4} ${y - 4}l-8 8` })];
  return [];
}

