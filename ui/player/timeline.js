// The run at a glance: one mark per forward, coloured and shaped by phase, higher the more tokens it
// settled. Drawn when data or size change; the playhead is an element of its own that only moves.

import { el } from './dom.js';

const PHASES = ['prefill', 'ar', 'denoise', 'draft', 'verify', 'commit', 'revise', 'chunk'];
const SETTLING = new Set(['seed', 'commit', 'draft', 'accept', 'bonus', 'pin']);
const ROW = 24; // px for the only lane
const SLIM_ROW = 17; // px per lane when there are several
const WIDEST = 9; // px of one mark
const CROWDED = 0.25; // px of one forward below which several share a mark

export class Timeline {
  /** `seek(fraction)` is called when somebody points at the timeline. */
  constructor(seek) {
    this.canvas = el('canvas', 'ndp-time-canvas');
    this.head = el('div', 'ndp-time-head');
    this.rail = el('div', 'ndp-time-rail', {}, this.canvas, this.head);
    this.legend = el('div', 'ndp-time-legend');
    this.element = el('div', 'ndp-time', { 'aria-hidden': 'true' }, this.rail, this.legend);
    // Resolves the theme's colours, which a canvas cannot read from custom properties.
    this.probes = PHASES.map((phase) => el('i', '', { hidden: true, style: `color:var(--nd-phase-${phase})` }));
    this.element.append(...this.probes);
    const point = (event) => {
      const box = this.canvas.getBoundingClientRect();
      seek(Math.max(0, Math.min(1, (event.clientX - box.left) / box.width)));
    };
    this.rail.addEventListener('pointerdown', (event) => {
      if (event.button !== 0) return;
      this.rail.setPointerCapture(event.pointerId);
      point(event);
    });
    this.rail.addEventListener('pointermove', (event) => {
      if (this.rail.hasPointerCapture(event.pointerId)) point(event);
    });
  }

  /** Draw `lanes`; `place(lane, stepIndex)` gives the fraction of the width at which a step ends. */
  draw(lanes, place) {
    const width = this.canvas.clientWidth;
    if (!width) return;
    const row = lanes.length > 1 ? SLIM_ROW : ROW;
    const height = row * lanes.length;
    const ratio = window.devicePixelRatio || 1;
    this.canvas.style.height = `${height}px`;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    const pen = this.canvas.getContext('2d');
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    const colours = new Map(PHASES.map((phase, i) => [phase, getComputedStyle(this.probes[i]).color]));
    lanes.forEach((lane, number) => {
      if (lane) drawLane(pen, lane, (index) => place(lane, index), { top: number * row, row, width, colours });
    });
    const phases = new Set();
    for (const lane of lanes) if (lane) for (const step of lane.steps) phases.add(step.phase);
    this.name(phases);
  }

  /** Say which mark is which phase, for the phases that occur. */
  name(phases) {
    const shown = PHASES.filter((phase) => phases.has(phase));
    if (shown.join() === this.named) return;
    this.named = shown.join();
    this.legend.replaceChildren(...shown.map((phase) => el('span', '', { 'data-phase': phase, style: `--nd-mark:var(--nd-phase-${phase})`, text: phase })));
  }

  moveHead(fraction) {
    this.head.style.left = `${fraction * 100}%`;
  }
}

function drawLane(pen, lane, place, { top, row, width, colours }) {
  const base = top + row - 5;
  const tallest = row - 9;
  let most = 1;
  for (const step of lane.steps) most = Math.max(most, settled(step));
  const pitch = (width * place(lane.last)) / Math.max(1, lane.steps.length);
  const thick = Math.max(0.6, Math.min(WIDEST, pitch * 0.7));
  const draw = (phase, x, height) => {
    pen.fillStyle = colours.get(phase) ?? colours.get('denoise');
    pen.strokeStyle = pen.fillStyle;
    mark(pen, phase, x, base, thick, height);
  };
  const heightOf = (step) => 3 + (tallest - 3) * (settled(step) / most);
  if (pitch < CROWDED) {
    crowd(lane, place, width, heightOf, draw);
    return;
  }
  lane.steps.forEach((step, index) => draw(step.phase, Math.max(0, place(index) * width - thick), heightOf(step)));
}

/** More forwards than there is room to tell apart: of those on one spot, the highest of each phase is drawn. */
function crowd(lane, place, width, heightOf, draw) {
  const highest = new Map(); // phase -> its height on the spot
  let spot = 0;
  const finish = () => {
    for (const [phase, height] of highest) draw(phase, spot * CROWDED, height);
    highest.clear();
  };
  lane.steps.forEach((step, index) => {
    const here = Math.floor(Math.max(0, place(index) * width - 0.01) / CROWDED);
    if (here !== spot) finish();
    spot = here;
    highest.set(step.phase, Math.max(highest.get(step.phase) ?? 0, heightOf(step)));
  });
  finish();
}

/** Shapes: prefill a square, draft hollow, verify capped, commit hanging below the line, the rest bars. */
function mark(pen, phase, x, base, thick, height) {
  const hollow = phase === 'draft' && thick >= 3;
  if (phase === 'commit') pen.fillRect(x, base + 1, thick, 3);
  else if (phase === 'prefill') pen.fillRect(x, base - Math.max(4, thick), thick, Math.max(4, thick));
  else if (hollow) {
    pen.lineWidth = 1;
    pen.strokeRect(x + 0.5, base - height + 0.5, thick - 1, height - 1);
  } else pen.fillRect(x, base - height, thick, height);
  if (phase === 'verify' && thick >= 2) pen.fillRect(x - 1, base - height - 2, thick + 2, 2);
}

function settled(step) {
  let n = 0;
  for (const event of step.events) if (SETTLING.has(event.kind)) n += 1;
  return n;
}
