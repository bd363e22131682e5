// What the map's marks and colours mean: only those that the run at hand has.

import { el } from './dom.js';
import { ACCEPTED, BONUS, COMMITTED, DRAFT, MASKED, PINNED, REJECTED, SEED } from './map_data.js';

/** Marks in the order in which a cell meets them: [class of its swatch, words, does the run have it?]. */
const MARKS = [
  ['mask', 'mask', (has) => has.status(MASKED)],
  ['draft', 'draft', (has) => has.status(DRAFT)],
  ['rejected', 'rejected or trimmed', (has) => has.status(REJECTED)],
  ['commit', 'commit', (has) => has.status(COMMITTED)],
  ['accepted', 'accepted', (has) => has.status(ACCEPTED)],
  ['bonus', 'bonus', (has) => has.status(BONUS)],
  ['seed', 'seed', (has) => has.status(SEED)],
  ['pinned', 'pinned', (has) => has.status(PINNED)],
  ['remasked', 'masked again', (has) => has.data.remasks > 0],
  ['revised', 'revised', (has) => has.data.revisions > 0],
  ['wrong', 'wrong commit', (has) => has.findings.wrong.length > 0],
];

export class MapLegend {
  constructor() {
    this.marks = el('span', 'ndp-map-marks');
    this.scale = el('span', 'ndp-scale', { role: 'img' });
    this.element = el('div', 'ndp-map-legend', {}, this.scale, this.marks);
  }

  update(data, findings, scale) {
    const marks = marksOf(data, findings);
    const key = `${scale.id} ${scale.labels(data)} ${marks.map(([name]) => name)}`;
    if (key === this.key) return;
    this.key = key;
    this.marks.replaceChildren(...marks.map(([name, words]) => el('span', 'ndp-map-mark', { 'data-mark': name }, el('i', '', { 'aria-hidden': 'true' }), words)));
    this.scale.setAttribute('aria-label', `Colour shows ${scale.word(data)}, ${scale.said}`);
    const labels = scale.labels(data);
    const swatches = scale.swatches.map((level, n) => el('span', 'ndp-scale-step', { style: `background:var(--nd-${scale.ramp}${level})` }, el('span', '', { text: n % 2 ? '' : labels[n] })));
    this.scale.replaceChildren(el('span', 'ndp-scale-word', { text: scale.word(data) }), ...swatches);
  }
}

/** One mark's swatch with a pen, 16 × 12 CSS px: the same pictures as in map.css. */
export function drawSwatch(pen, palette, name, x, y, unit) {
  const [width, height] = [16 * unit, 12 * unit];
  const bar = { commit: 'fresh', accepted: 'good', bonus: 'bonus' }[name];
  if (name === 'wrong') {
    pen.shape([x, y + height, x + width / 2, y, x + width, y + height], palette.bad);
    return;
  }
  const plain = { mask: 'sunken', remasked: 'sunken', draft: 'surface', rejected: 'surface' }[name];
  pen.rect(x, y, width, height, palette[plain ?? 'c6']);
  if (name === 'mask' || name === 'remasked') pen.pattern(x, y, width, height, 'hatch');
  if (name === 'draft') pen.pattern(x, y, width, height, 'dots');
  if (name === 'draft' || name === 'rejected') pen.frame(x, y, width, height, palette.line, unit);
  if (name === 'rejected') pen.line([x, y + height / 2, x + width, y + height / 2], palette.bad, 1.5 * unit);
  if (bar) pen.rect(x, y, width, 3 * unit, palette[bar]);
  if (name === 'seed') pen.shape([x + width - 8 * unit, y, x + width, y, x + width, y + 8 * unit], palette.ink);
  if (name === 'pinned') pen.shape([x + 8 * unit, y + 2 * unit, x + 12 * unit, y + 6 * unit, x + 8 * unit, y + 10 * unit, x + 4 * unit, y + 6 * unit], palette.ink);
  if (name === 'remasked' || name === 'revised') pen.shape([x, y + 4 * unit, x + 8 * unit, y + height, x, y + height], name === 'revised' ? palette['phase-revise'] : palette.surface, palette['phase-revise'], unit);
}

/** The marks that a run has, as [name, words]. */
export function marksOf(data, findings) {
  const seen = new Set(data.status.values.subarray(0, data.status.length));
  const has = { data, findings, status: (code) => seen.has(code) };
  return MARKS.filter(([, , test]) => test(has)).map(([name, words]) => [name, words]);
}
