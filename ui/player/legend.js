// What the marks mean: only the ones that the mode at hand can show, and the confidence scale.

import { BOUNDS } from './confidence.js';
import { el } from './dom.js';

const MARKS = {
  ar: ['committed'],
  remote: ['committed'],
  diffusion: ['masked', 'seed', 'committed', 'rejected'],
  linear_spec: ['masked', 'seed', 'draft', 'accepted', 'rejected', 'bonus'],
  quadratic_spec: ['masked', 'seed', 'draft', 'accepted', 'rejected', 'bonus'],
  refine: ['masked', 'seed', 'draft', 'accepted', 'committed', 'pinned'],
  infill: ['masked', 'committed', 'pinned'],
};
const NAMES = { masked: 'mask', rejected: 'rejected or trimmed' };

export class Legend {
  constructor() {
    this.marks = el('span', 'ndp-legend-marks');
    this.element = el('div', 'ndp-legend', {}, this.marks, scale());
  }

  /** `revised`: the run changed a token that it had already written. */
  update(mode, revised = false) {
    const key = `${mode} ${revised}`;
    if (key === this.key) return;
    this.key = key;
    const marks = (MARKS[mode] ?? [...new Set(Object.values(MARKS).flat())]).map((status) => mark(status, NAMES[status] ?? status));
    if (revised) marks.push(mark('committed', 'revised', true));
    this.marks.replaceChildren(...marks);
  }
}

function mark(status, name, revised = false) {
  const swatch = el('span', 'ndp-token ndp-mini', { 'data-status': status, 'data-level': 6, 'data-revised': revised ? 'true' : null, 'aria-hidden': 'true' }, el('span', 'ndp-cell-t', { text: status === 'masked' ? '' : 'a' }));
  return el('span', 'ndp-legend-mark', {}, swatch, name);
}

function scale() {
  const steps = [0, ...BOUNDS].map((from, level) =>
    el('span', 'ndp-scale-step', { 'data-level': level, title: `confidence from ${from}` }, el('span', '', { text: level % 2 === 0 ? String(from).replace(/^0\./, '.') : '' })),
  );
  return el('span', 'ndp-scale', { role: 'img', 'aria-label': 'Colour shows confidence, from unsure (orange) to sure (blue)' }, el('span', 'ndp-scale-word', { text: 'confidence' }), ...steps, el('span', 'ndp-scale-end', { text: '1' }));
}
