// What a tile's colour can stand for. Each scale has eight levels; their colours are variables of the stylesheets.

import { BOUNDS, level } from './confidence.js';

const ENTROPY = [0.05, 0.15, 0.4, 0.8, 1.3, 2, 3]; // nats
const REGRET = [0.01, 0.05, 0.2, 0.5, 1, 2, 4]; // nats

const count = (bounds, value) => bounds.reduce((n, bound) => n + (value >= bound ? 1 : 0), 0);
const short = (value) => String(value).replace(/^0\./, '.');

/** Levels 0 (certain, blue) … 7 (doubtful, orange) of a number of nats, as levels of confidence. */
const doubt = (bounds) => (value) => (Number.isFinite(value) ? 7 - count(bounds, value) : -1);

/** How many forwards one level of the order stands for: even, so that short blocks use all eight. */
const stride = (data) => Math.max(1, 2 ** Math.ceil(Math.log2(data.longest / 8)));

export const SCALES = [
  {
    id: 'confidence',
    title: 'Confidence',
    word: () => 'confidence',
    ramp: 'c',
    said: 'from unsure (orange) to sure (blue)',
    fits: () => true,
    level: (data, change) => level(data.confidence.at(change)),
    labels: () => [0, ...BOUNDS].map(short),
    swatches: [0, 1, 2, 3, 4, 5, 6, 7],
  },
  {
    id: 'order',
    title: 'Order',
    word: (data) => (data.lane.remote ? 'chunk' : data.blockwise ? 'forward of its block' : 'forward'),
    ramp: 'o',
    said: 'from the first to the last',
    fits: () => true,
    level: (data, change) => Math.min(7, Math.floor((data.order.at(change) - 1) / stride(data))),
    labels: (data) => [0, 1, 2, 3, 4, 5, 6, 7].map((n) => String(n * stride(data) + 1)),
    swatches: [0, 1, 2, 3, 4, 5, 6, 7],
    grain: stride,
  },
  {
    id: 'entropy',
    title: 'Entropy',
    word: () => 'entropy in nats',
    ramp: 'c',
    said: 'from none (blue) to much (orange)',
    fits: (data) => data.entropies > 0,
    level: (data, change) => doubt(ENTROPY)(data.entropy.at(change)),
    looked: (data, look) => doubt(ENTROPY)(data.lookEntropy.at(look)),
    labels: () => [0, ...ENTROPY].map(short),
    swatches: [7, 6, 5, 4, 3, 2, 1, 0],
  },
  {
    id: 'regret',
    title: 'Regret',
    word: () => 'regret in nats',
    ramp: 'c',
    said: 'from none (blue) to much (orange)',
    fits: (data, findings) => findings.regret !== null,
    level: (data, change, column, findings) => doubt(REGRET)(findings.regret?.get(column)?.nats),
    labels: () => [0, ...REGRET].map(short),
    swatches: [7, 6, 5, 4, 3, 2, 1, 0],
  },
];

export const scaleOf = (id) => SCALES.find((scale) => scale.id === id) ?? SCALES[0];

const NAMED = ['surface', 'sunken', 'line', 'edge', 'ink', 'muted', 'accent', 'good', 'bad', 'bonus', 'hatch', 'fresh'];
const PHASES = ['prefill', 'ar', 'denoise', 'draft', 'verify', 'commit', 'revise', 'chunk'];
const RAMPS = ['c', 't', 'o', 'u'].flatMap((ramp) => [0, 1, 2, 3, 4, 5, 6, 7].map((n) => `${ramp}${n}`));

/** The theme's colours as a canvas understands them: it cannot read custom properties itself. */
export class Palette {
  /** `host` is an element inside a player; `scheme` ('light' or 'dark') overrules its theme. */
  constructor(host, scheme = '') {
    this.probe = document.createElement('i');
    this.probe.hidden = true;
    this.probe.style.colorScheme = scheme;
    host.append(this.probe);
    this.refresh();
  }

  /** Read the colours again; returns whether they have changed. */
  refresh() {
    const seen = `${this.read('surface')} ${this.read('ink')} ${this.read('o0')}`;
    if (seen === this.seen) return false;
    this.seen = seen;
    for (const name of [...NAMED, ...PHASES.map((phase) => `phase-${phase}`), ...RAMPS]) this[name] = this.read(name);
    return true;
  }

  read(name) {
    this.probe.style.color = `var(--nd-${name})`;
    return getComputedStyle(this.probe).color;
  }

  release() {
    this.probe.remove();
  }
}
