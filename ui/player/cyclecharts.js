// Two small charts of a speculative run: how often each acceptance length came, and how the mean moved.

import { el, setAttr } from './dom.js';
import { box, svg } from './svg.js';
import { number, plural } from './words.js';

const TALL = 150; // px of a chart
const TOP = 16;
const BOTTOM = 20;
const LEFT = 36;
const CROWDED = 160; // cycles from which single ones are not drawn

/** Bars 1 … B. A bar is a button; with several lanes the others' bars are lines of their own dash. */
export class Histogram {
  /** `choose(length)` is called when a bar is clicked or entered. */
  constructor(choose) {
    this.choose = choose;
    this.reached = 1; // the bar that Tab reaches
    this.plot = svg('svg', 'ndp-cyc-plot', { role: 'group', 'aria-label': 'Cycles by acceptance length', onkeydown: (event) => this.key(event) });
    this.element = el('div', 'ndp-cyc-chart', {}, this.plot);
  }

  /** `counts[n]` cycles emitted n tokens; `others` are such lists of other lanes; `mean` is drawn where known. */
  draw({ counts, others, mean, chosen, width }) {
    const longest = counts.length - 1;
    const sum = (list) => Math.max(1, list.reduce((a, b) => a + b, 0));
    const share = (list) => list.map((n) => n / sum(list));
    const own = share(counts);
    const rest = others.map(share);
    const most = Math.max(0.01, ...own, ...rest.flat());
    const wide = (width - LEFT - 6) / longest;
    const high = TALL - TOP - BOTTOM;
    const x = (n) => LEFT + (n - 1) * wide;
    const y = (value) => TOP + high * (1 - value / most);
    const every = wide >= 16 ? 1 : wide >= 8 ? 2 : Math.ceil(26 / wide);
    this.counts = counts;
    if (!counts[this.reached]) this.reached = Math.max(1, counts.findIndex((n, i) => i > 0 && n > 0));
    const bars = own.slice(1).map((value, i) => this.bar(i + 1, value, { x, y, wide, chosen, base: TOP + high }));
    const lines = rest.map((list, lane) => svg('path', 'ndp-cyc-other', { 'data-lane': lane, d: list.slice(1).map((value, i) => (value ? `M${x(i + 1) + 1} ${y(value)}h${wide - 2}` : '')).join('') }));
    const figures = own.map((value, n) => n && counts[n] && wide >= 12 && svg('text', 'ndp-cyc-count', { x: x(n) + wide / 2, y: y(value) - 3, 'text-anchor': 'middle', text: String(counts[n]) })).filter(Boolean);
    const ticks = own.slice(1).map((_, i) => i + 1).filter((n) => n === 1 || n === longest || (n % every === 0 && longest - n >= every / 2)).map((n) => svg('text', '', { x: x(n) + wide / 2, y: TALL - 6, 'text-anchor': 'middle', text: String(n) }));
    const middle = Number.isFinite(mean) ? LEFT + (mean - 0.5) * wide : null;
    const line = middle === null ? [] : [svg('path', 'ndp-cyc-mean', { d: `M${middle} ${TOP - 4}V${TOP + high}` }), svg('text', 'ndp-cyc-mean-text', { x: middle + (middle > width - 80 ? -4 : 4), y: TOP - 4, 'text-anchor': middle > width - 80 ? 'end' : 'start', text: `mean ${number(mean)}` })];
    setAttr(this.plot, 'width', width);
    setAttr(this.plot, 'height', TALL);
    const focused = this.plot.contains(document.activeElement);
    this.plot.replaceChildren(svg('path', 'ndp-cyc-axis', { d: `M${LEFT} ${TOP + high}H${width - 4}` }), svg('text', '', { x: 0, y: TOP + 4, text: `${Math.round(most * 100)} %` }), ...bars, ...lines, ...ticks, ...line, ...figures);
    if (focused) this.focus();
  }

  bar(n, value, { x, y, wide, chosen, base }) {
    const count = this.counts[n];
    const name = `${plural(count, 'cycle')} of length ${n}`;
    const bar = svg('path', 'ndp-cyc-bar', { d: box(x(n) + 1, y(value), Math.max(1, wide - 2), base - y(value)) });
    const hit = svg('path', 'ndp-cyc-hit', { d: box(x(n), TOP, wide, base - TOP) });
    const group = svg('g', 'ndp-cyc-column', { 'data-length': n }, svg('title', '', { text: name }), hit, bar);
    if (!count) return group;
    setAttr(group, 'role', 'button');
    setAttr(group, 'tabindex', n === this.reached ? 0 : -1);
    setAttr(group, 'aria-label', name);
    setAttr(group, 'aria-pressed', String(n === chosen));
    group.addEventListener('click', () => { this.reached = n; this.choose(n); });
    return group;
  }

  focus() {
    this.plot.querySelector(`[data-length="${this.reached}"]`)?.focus();
  }

  /** Left and right go from bar to bar; Enter and Space press it. */
  key(event) {
    const lengths = this.counts.map((n, i) => (i && n ? i : 0)).filter(Boolean);
    const at = lengths.indexOf(this.reached);
    const moves = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: lengths.length - 1 };
    const press = event.key === 'Enter' || event.key === ' ';
    if (!press && !(event.key in moves)) return;
    event.preventDefault();
    event.stopPropagation();
    if (press) return void this.choose(this.reached);
    const next = lengths[Math.max(0, Math.min(lengths.length - 1, moves[event.key]))];
    for (const column of this.plot.querySelectorAll('[tabindex]')) setAttr(column, 'tabindex', Number(column.dataset.length) === next ? 0 : -1);
    this.reached = next;
    this.focus();
  }
}

/** The mean acceptance length after each cycle, and the cycles themselves as dots. */
export class RunningMean {
  /** `choose(index)` is called with the cycle that is pointed at. */
  constructor(choose) {
    this.choose = choose;
    this.plot = svg('svg', 'ndp-cyc-plot', { role: 'img', onclick: (event) => this.point(event) });
    this.element = el('div', 'ndp-cyc-chart', {}, this.plot);
  }

  /** `lengths` and `means` of the cycles; `others` are means of other lanes. */
  draw({ lengths, means, others, longest, width }) {
    const n = Math.max(1, means.length, ...others.map((list) => list.length));
    const high = TALL - TOP - BOTTOM;
    this.width = width;
    this.x = (i) => LEFT + ((i + 0.5) / n) * (width - LEFT - 6);
    const y = (value) => TOP + high * (1 - value / longest);
    const line = (list) => list.map((value, i) => `${i ? 'L' : 'M'}${this.x(i).toFixed(1)} ${y(value).toFixed(1)}`).join('');
    const dots = lengths.length > CROWDED ? [] : lengths.map((value, i) => svg('circle', 'ndp-cyc-dot', { cx: this.x(i).toFixed(1), cy: y(value).toFixed(1), r: 2 }));
    this.count = lengths.length;
    this.head = svg('path', 'ndp-cyc-now', { d: '' });
    setAttr(this.plot, 'width', width);
    setAttr(this.plot, 'height', TALL);
    setAttr(this.plot, 'aria-label', means.length ? `Mean acceptance length over ${plural(means.length, 'cycle')}: ${number(means[0])} at first, ${number(means.at(-1))} in the end` : 'No cycles yet');
    this.plot.replaceChildren(
      svg('path', 'ndp-cyc-axis', { d: `M${LEFT} ${TOP + high}H${width - 4}M${LEFT} ${y(longest)}h4M${LEFT} ${y(1)}h4` }),
      ...[1, longest].map((value) => svg('text', '', { x: LEFT - 6, y: y(value) + 4, 'text-anchor': 'end', text: String(value) })),
      svg('text', '', { x: this.x(0), y: TALL - 6, text: 'cycle 1' }),
      svg('text', '', { x: width - 6, y: TALL - 6, 'text-anchor': 'end', text: String(n) }),
      ...dots,
      ...others.map((list, lane) => svg('path', 'ndp-cyc-other', { 'data-lane': lane, d: line(list) })),
      svg('path', 'ndp-cyc-line', { d: line(means) }),
      this.head,
    );
  }

  /** Mark the cycle of the step in view. */
  mark(index) {
    setAttr(this.head, 'd', index < 0 ? '' : `M${this.x(index).toFixed(1)} ${TOP - 6}V${TALL - BOTTOM}`);
  }

  point(event) {
    if (!this.count) return;
    const at = event.clientX - this.plot.getBoundingClientRect().left;
    let best = 0;
    for (let i = 1; i < this.count; i += 1) if (Math.abs(this.x(i) - at) < Math.abs(this.x(best) - at)) best = i;
    this.choose(best);
  }
}
