// A cell over time: how probable its token and the others were at every step that looked at it, how sure the
// model was, and when the cell was written, masked again or rewritten.

import { el, setAttr, setText } from './dom.js';
import { storyOf } from './history_data.js';
import { pace } from './map_draw.js';
import { cellText } from './pieces.js';
import { svg } from './svg.js';
import { number, plural, STATUS_NAMES } from './words.js';

const LINES = [
  { colour: 'accent', dash: '', shape: 'circle' },
  { colour: 'h1', dash: '6 3', shape: 'square' },
  { colour: 'h2', dash: '2 3', shape: 'triangle' },
  { colour: 'h3', dash: '8 3 2 3', shape: 'diamond' },
  { colour: 'h4', dash: '1 4', shape: 'cross' },
];
const GLYPHS = { committed: '●', masked: '○', draft: '◌', accepted: '✓', rejected: '×', bonus: '+', seed: '◥', pinned: '◆' };
const LEFT = 38;
const RIGHT = 14;
const PLOT = { top: 20, height: 160 };
const ENTROPY = { top: 212, height: 44 };
const HEIGHT = 284;
const EMPTY = 'Pin a cell (click it in the block, the text or the map) to see how its candidates changed from step to step.';
const UNREACHED = 'The run has not reached this cell.';
const KNOWN = 'Faint points: the cell was already written when the forward ran, so these are no predictions of it.';
const UNSEEN = 'No candidates were recorded for this cell; set “Candidates recorded per cell” above 0 and run again.';

class HistoryPanel {
  constructor(context) {
    this.context = context;
    this.note = el('p', 'ndp-panel-note', { text: EMPTY });
    this.piece = el('span', 'ndp-story-piece');
    this.place = el('span', 'ndp-story-place');
    this.head = el('div', 'ndp-story-head', {}, this.piece, this.place);
    this.chart = svg('svg', '', { role: 'img', height: HEIGHT });
    this.chart.addEventListener('click', (event) => this.click(event));
    this.values = el('ul', 'ndp-story-values', { 'aria-label': 'Probabilities at this step' });
    this.known = el('p', 'ndp-panel-note', { text: KNOWN });
    this.body = el('div', 'ndp-story-body', {}, this.chart, el('div', '', {}, this.values, this.known));
    this.moments = el('ul', 'ndp-story-moments', { 'aria-label': 'What happened to this cell' });
    this.element = el('div', 'ndp-story', {}, this.note, this.head, this.body, this.moments);
  }

  update(frame) {
    const { position } = this.context.focus;
    const changed = frame.stale || frame.lane !== this.lane || position !== this.position;
    this.lane = frame.lane;
    this.position = position;
    if (changed) this.tell();
    this.now(frame.step);
  }

  /** Everything that does not depend on the step shown. */
  tell() {
    const { lane, position } = this;
    this.story = position === null ? null : storyOf(lane, position);
    const { story } = this;
    const seen = Boolean(story?.looks.length);
    setText(this.note, position === null ? EMPTY : !story ? UNREACHED : seen ? '' : UNSEEN);
    this.note.hidden = seen;
    this.head.hidden = this.moments.hidden = !story;
    this.body.hidden = !seen;
    if (!story) return;
    setText(this.piece, story.written === null ? 'mask' : cellText(lane.piece(story.written)));
    const looks = seen ? ` · looked at in ${plural(story.looks.length, 'step')}` : '';
    setText(this.place, `answer ${position - lane.start + 1} (position ${position})${looks}`);
    this.moments.replaceChildren(...story.moments.map((moment) => this.moment(moment)));
    if (seen) this.draw();
  }

  moment(moment) {
    const { lane } = this;
    const what = moment.from !== null ? `revised: “${cellText(lane.piece(moment.from))}” →` : moment.status === 'masked' ? 'masked again' : STATUS_NAMES[moment.status];
    const token = moment.token === null ? '' : ` “${cellText(lane.piece(moment.token))}”`;
    const text = `${moment.from === null ? GLYPHS[moment.status] : '◣'} step ${moment.step + 1} · ${what}${token}`;
    return el('li', '', {}, el('button', 'ndp-story-moment', { type: 'button', text, 'data-step': moment.step, onclick: () => this.context.seek(moment.step) }));
  }

  // -- the charts ---------------------------------------------------------------------------------

  x(step) {
    return LEFT + ((step - this.from) / (this.to - this.from)) * (this.width - LEFT - RIGHT);
  }

  draw() {
    const { story, lane, chart } = this;
    this.width = Math.max(260, chart.clientWidth || 600);
    this.from = story.first - 1;
    this.to = story.last + 1;
    setAttr(chart, 'viewBox', `0 0 ${this.width} ${HEIGHT}`);
    setAttr(chart, 'aria-label', this.summary());
    const parts = [...this.axes(), ...this.ticks()];
    story.series.forEach((series, n) => parts.push(...this.line(series, n)));
    parts.push(...this.entropy(), ...this.marks());
    this.nowLine = svg('line', 'ndp-story-now', { y1: PLOT.top - 4, y2: ENTROPY.top + ENTROPY.height });
    chart.replaceChildren(...parts, this.nowLine);
    this.values.replaceChildren(...story.series.map((series, n) => this.value(series, n)));
    this.known.hidden = story.looks.every((look) => look.asked);
    this.figures = [...this.values.querySelectorAll('.ndp-look-p')];
  }

  axes() {
    const parts = [0, 0.5, 1].flatMap((value) => {
      const y = heightOf(value);
      return [svg('line', 'ndp-story-grid', { x1: LEFT, x2: this.width - RIGHT, y1: y, y2: y }), written(LEFT - 6, y + 4, value.toFixed(1), 'end')];
    });
    parts.push(written(0, 11, 'probability', 'start'), written(0, ENTROPY.top - 8, 'entropy, nats', 'start'));
    const floor = ENTROPY.top + ENTROPY.height;
    parts.push(svg('line', 'ndp-story-grid', { x1: LEFT, x2: this.width - RIGHT, y1: floor, y2: floor }));
    return parts;
  }

  ticks() {
    const every = pace((this.width - LEFT - RIGHT) / (this.to - this.from), 34);
    const parts = [];
    for (let n = Math.ceil((this.from + 1) / every) * every; n <= this.to + 1; n += every) if (n >= 1) parts.push(written(this.x(n - 1), HEIGHT - 4, String(n), 'middle'));
    parts.push(written(0, HEIGHT - 4, 'step', 'start'));
    return parts;
  }

  line({ points }, n) {
    const style = LINES[n];
    let path = '';
    let pen = 'M';
    const dots = [];
    for (const { step, probability, asked } of points) {
      if (probability !== null && !asked) dots.push(dot(style, this.x(step), heightOf(probability), n ? 3 : 4, 0.3));
      if (probability === null || !asked) pen = 'M'; // not among the recorded ones: the line has a gap
      else {
        path += `${pen}${this.x(step).toFixed(1)} ${heightOf(probability).toFixed(1)}`;
        pen = 'L';
        dots.push(dot(style, this.x(step), heightOf(probability), n ? 3 : 4));
      }
    }
    return [svg('path', 'ndp-story-line', { d: path || 'M0 0', 'data-written': n ? null : 'true', style: `stroke:var(--nd-${style.colour})`, 'stroke-dasharray': style.dash || null }), ...(points.length > 60 ? [] : dots)];
  }

  entropy() {
    const known = this.story.looks.filter((look) => look.asked && Number.isFinite(look.entropy));
    if (!known.length) return [];
    const most = Math.max(1, ...known.map((look) => look.entropy));
    const y = (value) => ENTROPY.top + ENTROPY.height * (1 - value / most);
    const path = known.map((look, n) => `${n ? 'L' : 'M'}${this.x(look.step).toFixed(1)} ${y(look.entropy).toFixed(1)}`).join('');
    return [
      written(LEFT - 6, ENTROPY.top + 8, number(most, 1), 'end'),
      written(LEFT - 6, ENTROPY.top + ENTROPY.height, '0', 'end'),
      svg('path', 'ndp-story-line', { d: path, style: 'stroke:var(--nd-muted)' }),
      ...(known.length > 60 ? [] : known.map((look) => dot({ colour: 'muted', shape: 'circle' }, this.x(look.step), y(look.entropy), 2.5))),
    ];
  }

  /** A dotted line with a sign at every moment of the cell. */
  marks() {
    return this.story.moments.flatMap((moment) => {
      const x = this.x(moment.step);
      return [
        svg('line', 'ndp-story-grid', { x1: x, x2: x, y1: PLOT.top - 2, y2: PLOT.top + PLOT.height, style: 'stroke:var(--nd-edge)', 'stroke-dasharray': '2 3' }),
        written(x, 12, moment.from === null ? GLYPHS[moment.status] : '◣', 'middle', 'fill:var(--nd-ink)'),
      ];
    });
  }

  value({ token }, n) {
    const swatch = svg('svg', '', { viewBox: '0 0 34 12', 'aria-hidden': 'true' });
    const style = LINES[n];
    swatch.append(svg('path', 'ndp-story-line', { d: 'M0 6H34', 'data-written': n ? null : 'true', style: `stroke:var(--nd-${style.colour})`, 'stroke-dasharray': style.dash || null }), dot(style, 17, 6, n ? 3 : 4));
    const name = el('span', 'ndp-look-token', { text: cellText(this.lane.piece(token)), title: n ? null : 'the token that was written' });
    return el('li', '', { 'data-written': n ? null : 'true' }, swatch, name, el('span', 'ndp-look-p'));
  }

  summary() {
    const { story, lane } = this;
    const points = story.series[0].points.filter(({ probability, asked }) => asked && probability !== null);
    if (!points.length) return 'The written token was never among the recorded candidates.';
    const [first, last] = [points[0], points.at(-1)];
    return `Probability of “${cellText(lane.piece(story.written))}”: ${number(first.probability)} in step ${first.step + 1}, ${number(last.probability)} in step ${last.step + 1}.`;
  }

  /** What depends on the step shown: the upright line, the figures, the current moment. */
  now(step) {
    if (!this.story) return;
    const current = this.story.moments.findLast((moment) => moment.step <= step);
    for (const button of this.moments.querySelectorAll('button')) setAttr(button, 'aria-current', current && Number(button.dataset.step) === current.step ? 'step' : null);
    if (!this.story.looks.length) return;
    const inside = step >= this.from && step <= this.to;
    const x = this.x(Math.max(this.from, Math.min(this.to, step)));
    setAttr(this.nowLine, 'x1', x);
    setAttr(this.nowLine, 'x2', x);
    setAttr(this.nowLine, 'stroke-dasharray', inside ? null : '3 3');
    const look = this.story.looks.findLastIndex((one) => one.step <= step);
    this.story.series.forEach(({ points }, n) => setText(this.figures[n], look < 0 ? '–' : points[look].probability === null ? 'less' : number(points[look].probability, 3)));
  }

  click(event) {
    const box = this.chart.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * this.width;
    const step = Math.round(this.from + ((x - LEFT) / (this.width - LEFT - RIGHT)) * (this.to - this.from));
    this.context.seek(Math.max(-1, Math.min(this.lane.last, step)));
  }
}

const heightOf = (probability) => PLOT.top + PLOT.height * (1 - probability);

function written(x, y, text, anchor, style = null) {
  return svg('text', '', { x, y, 'text-anchor': anchor, style, text });
}

/** A point of a line; the shapes differ so that colour is not needed to tell lines apart. */
function dot({ colour, shape }, x, y, size, opacity = 1) {
  const style = `opacity:${opacity};fill:var(--nd-${colour});stroke:var(--nd-${colour})`;
  const s = size;
  const paths = {
    square: `M${x - s} ${y - s}h${2 * s}v${2 * s}h${-2 * s}Z`,
    triangle: `M${x - s} ${y + s}h${2 * s}L${x} ${y - s}Z`,
    diamond: `M${x} ${y - s - 1}L${x + s + 1} ${y}L${x} ${y + s + 1}L${x - s - 1} ${y}Z`,
    cross: `M${x - s} ${y - s}L${x + s} ${y + s}M${x - s} ${y + s}L${x + s} ${y - s}`,
  };
  return shape === 'circle' ? svg('circle', '', { cx: x, cy: y, r: s, style }) : svg('path', '', { d: paths[shape], style });
}

export const HISTORY = {
  id: 'history',
  title: 'Cell over time',
  fits: () => true,
  make: (context) => new HistoryPanel(context),
};
