// The speculate panel: every draft-and-verify cycle of the lane in view, how long the accepted runs were, which
// kinds of text drafts get right, and where the time went.

import { Histogram, RunningMean } from './cyclecharts.js';
import { CycleList } from './cyclelist.js';
import { el, setAttr, setText } from './dom.js';
import { Figures } from './header.js';
import { CLASSES, SPECULATIVE, byClass, cycleAt, cyclesOf, histogram, laneNames, longestOf, runningMean, timeShares } from './speculation.js';
import { count, modeName, number, percent, plural, seconds } from './words.js';

const DIFFERENCE =
  'Acceptance length: tokens emitted by one verification, the bonus included. TPF: tokens of the answer divided by all counted forwards, those that only draft included. ';
const RATIO = {
  linear_spec: 'In linear self-speculation every cycle runs at least two forwards, a draft and a verification, so TPF is at most about half the acceptance length.',
  quadratic_spec: 'In quadratic self-speculation one forward verifies and drafts, so TPF is close to the acceptance length, while each forward computes far more positions.',
};
const FIGURES = [
  ['acceptance', 'mean acceptance', DIFFERENCE],
  ['tpf', 'TPF', DIFFERENCE],
  ['cycles', 'cycles', 'Verifications run'],
];
const CLASS_NAMES = new Map(CLASSES);
const ONE_COLUMN = 720; // px
const GAP = 32;

class Cycles {
  constructor({ select }) {
    this.filter = null; // an acceptance length
    const seek = (cycle) => cycle && select({ lane: this.number, step: cycle.step });
    this.seek = seek;
    this.figures = new Figures(FIGURES);
    this.ratio = el('p', 'ndp-panel-note');
    this.histogram = new Histogram((length) => this.choose(length));
    this.mean = new RunningMean((index) => seek(this.cycles[index]));
    this.list = new CycleList(seek);
    this.shown = el('span', 'ndp-place');
    this.all = el('button', 'ndp-chip', { type: 'button', text: 'show all cycles', onclick: () => this.choose(null) });
    this.key = el('div', 'ndp-cyc-key');
    this.classes = el('table', 'ndp-cyc-table');
    this.lanes = el('table', 'ndp-cyc-table ndp-cyc-lanes');
    this.comparison = el('section', 'ndp-cyc-part', { 'aria-label': 'Lanes compared' }, el('h3', 'ndp-title', { text: 'Lanes that speculate' }), el('div', 'ndp-cyc-wide', {}, this.lanes));
    this.time = el('div', 'ndp-cyc-time');
    const part = (title, ...children) => el('section', 'ndp-cyc-part', { 'aria-label': title }, el('h3', 'ndp-title', { text: title }), ...children);
    this.charts = el('div', 'ndp-cyc-columns', {}, part('Acceptance length', this.histogram.element), part('Running mean', this.mean.element));
    this.tables = el('div', 'ndp-cyc-columns', {}, part('Drafts by kind of text', el('div', 'ndp-cyc-wide', {}, this.classes)), part('Share of time', this.time));
    this.element = el(
      'div', 'ndp-cyc', {},
      this.figures.element, this.ratio, this.charts, this.key,
      el('div', 'ndp-panel-head ndp-cyc-bar-head', {}, el('h3', 'ndp-title', { text: 'Cycles' }), this.shown, this.all),
      this.list.element, this.comparison, this.tables,
    );
  }

  /** Show only cycles of one acceptance length and go to the first of them; the same length again, or null, shows all. */
  choose(length) {
    this.filter = length === this.filter ? null : length;
    this.draw();
    if (this.filter !== null) this.seek(this.cycles.find((cycle) => cycle.length === this.filter));
  }

  update({ lane, number: lineNumber, lanes, step, stale }) {
    this.number = lineNumber;
    if (lane !== this.lane) {
      this.lane = lane;
      this.filter = null;
      this.list.element.scrollTop = 0;
    }
    if (!this.element.clientWidth) return;
    if (stale || !this.cycles) {
      this.gather(lanes);
      this.draw();
    }
    const at = cycleAt(this.cycles, step);
    this.mean.mark(at);
    this.list.mark(this.cycles[at] ?? null);
  }

  gather(lanes) {
    this.cycles = cyclesOf(this.lane.steps);
    const names = laneNames(lanes, modeName);
    this.runs = lanes
      .map((lane, i) => lane && { lane, name: names[i], cycles: lane === this.lane ? this.cycles : SPECULATIVE.has(lane.mode) ? cyclesOf(lane.steps) : [] })
      .filter((run) => run && SPECULATIVE.has(run.lane.mode));
    this.others = this.runs.filter((run) => run.lane !== this.lane);
    this.longest = this.runs.reduce((most, run) => Math.max(most, longestOf(run.cycles, run.lane.request)), 1);
  }

  draw() {
    const { lane, cycles, others, longest } = this;
    const width = this.element.clientWidth;
    const columns = width < ONE_COLUMN ? 1 : 2;
    const half = columns === 1 ? width : Math.floor((width - GAP) / 2);
    for (const grid of [this.charts, this.tables]) grid.dataset.columns = String(columns);
    // Rates are Python's, so they come with the end of the run.
    this.figures.set('acceptance', number(lane.metrics?.acceptance_length ?? NaN));
    this.figures.set('tpf', number(lane.metrics?.tpf ?? NaN));
    this.figures.set('cycles', count(cycles.length));
    setText(this.ratio, RATIO[lane.mode] ?? '');
    this.histogram.draw({ counts: histogram(cycles, longest), others: others.map((run) => histogram(run.cycles, longest)), mean: lane.metrics?.acceptance_length, chosen: this.filter, width: half });
    this.mean.draw({ lengths: cycles.map((cycle) => cycle.length), means: runningMean(cycles), others: others.map((run) => runningMean(run.cycles)), longest, width: half });
    this.name();
    const shown = this.filter === null ? cycles : cycles.filter((cycle) => cycle.length === this.filter);
    setText(this.shown, this.filter === null ? plural(cycles.length, 'cycle') : `${plural(shown.length, 'cycle')} of length ${this.filter}, of ${count(cycles.length)}`);
    this.all.hidden = this.filter === null;
    this.list.show(shown, lane, longestOf(cycles, lane.request), width);
    this.compare();
    this.classify();
    this.shareTime();
  }

  /** Which line is which lane. */
  name() {
    this.key.hidden = !this.others.length;
    const own = this.runs.find((run) => run.lane === this.lane);
    this.key.replaceChildren(
      el('span', '', { 'data-lane': 'own', text: `bars: ${own?.name ?? ''}` }),
      ...this.others.map((run, i) => el('span', '', { 'data-lane': i, text: run.name })),
    );
  }

  compare() {
    this.comparison.hidden = this.runs.length < 2;
    if (this.runs.length < 2) return;
    const rows = this.runs.map(({ lane, name, cycles }) => {
      const total = byClass(cycles, (id) => lane.piece(id)).reduce((sum, entry) => ({ judged: sum.judged + entry.judged, accepted: sum.accepted + entry.accepted }), { judged: 0, accepted: 0 });
      const { metrics } = lane;
      return [name, number(metrics?.acceptance_length ?? NaN), number(metrics?.tpf ?? NaN), number(metrics?.tokens_per_second ?? NaN, 0), count(cycles.length), percent(total.accepted / total.judged)];
    });
    fillTable(this.lanes, ['lane', 'acceptance', 'TPF', 'tokens/s', 'cycles', 'accepted'], rows);
    setAttr(this.lanes, 'title', 'Accepted: share of the judged drafts that were accepted; drafts behind a refused one are never judged.');
    this.runs.forEach((run, i) => setAttr(this.lanes.tBodies[0].rows[i], 'data-current', run.lane === this.lane ? 'true' : null));
  }

  classify() {
    const entries = byClass(this.cycles, (id) => this.lane.piece(id));
    const rows = entries.map(({ id, drafted, judged, accepted }) => [CLASS_NAMES.get(id), count(drafted), count(judged), count(accepted), percent(accepted / judged)]);
    fillTable(this.classes, ['text of the draft', 'drafted', 'judged', 'accepted', 'rate'], rows);
    setAttr(this.classes, 'title', 'Judged: every draft before it was accepted. Those behind the first refusal are dropped unseen and count for nothing.');
    entries.forEach(({ judged, accepted }, i) => {
      const cell = this.classes.tBodies[0].rows[i].cells[4];
      cell.style.setProperty('--nd-part', `${judged ? (accepted / judged) * 100 : 0}%`);
      cell.className = 'ndp-cyc-rate';
    });
  }

  shareTime() {
    const shares = timeShares(this.lane);
    const whole = shares.reduce((sum, [, spent]) => sum + spent, 0) || 1;
    const said = shares.map(([phase, spent]) => `${phase} ${percent(spent / whole)}`).join(', ');
    this.time.replaceChildren(
      el('div', 'ndp-cyc-stack', { role: 'img', 'aria-label': `Share of time: ${said}` }, ...shares.map(([phase, spent]) => el('span', '', { 'data-phase': phase, style: `flex-grow:${spent / whole};--nd-mark:var(--nd-phase-${phase})` }))),
      el('div', 'ndp-cyc-shares', {}, ...shares.map(([phase, spent]) => el('span', '', { 'data-phase': phase, style: `--nd-mark:var(--nd-phase-${phase})`, text: `${phase} ${percent(spent / whole)} · ${seconds(spent)}` }))),
    );
  }
}

function fillTable(table, heads, rows) {
  const line = (tag, cells) => el('tr', '', {}, ...cells.map((text, i) => el(i === 0 ? 'th' : tag, '', { text, scope: tag === 'th' ? 'col' : i === 0 ? 'row' : null })));
  table.replaceChildren(el('thead', '', {}, line('th', heads)), el('tbody', '', {}, ...rows.map((row) => line('td', row))));
}

export const CYCLES = { id: 'cycles', title: 'Speculate', fits: (lane) => SPECULATIVE.has(lane.mode), make: (context) => new Cycles(context) };
