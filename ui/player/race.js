// The Race view: one lane per mode. The lanes ran one after another and are replayed together.

import { el, setAttr, setText } from './dom.js';
import { FIGURES, Figures, showMetrics } from './header.js';
import { Legend } from './legend.js';
import { proseText } from './pieces.js';
import { Prose } from './prose.js';
import { count, duration, ending, modeName, seconds } from './words.js';

const ORDER = ['tokens', 'forwards', 'seconds', 'nfe', 'tpf', 'acceptance', 'rate'];
const EXPECTED = ['ar', 'diffusion', 'linear_spec'];
const PLACES = ['1st', '2nd', '3rd', '4th'];

class LaneCard {
  constructor(index) {
    this.index = index;
    this.mode = el('h3', 'ndp-lane-mode');
    this.place = el('span', 'ndp-place-badge');
    this.state = el('span', 'ndp-lane-state');
    this.fill = el('span', 'ndp-lane-fill');
    this.prose = new Prose();
    this.heard = el('div', 'ndp-heard');
    this.figures = new Figures(ORDER.map((key) => FIGURES.find(([name]) => name === key)), 'ndp-figures ndp-lane-figures');
    this.badge = el('p', 'ndp-badge', { hidden: true });
    this.element = el(
      'section', 'ndp-lane', {},
      el('div', 'ndp-lane-head', {}, this.mode, this.place, this.state),
      el('div', 'ndp-lane-track', { 'aria-hidden': 'true' }, this.fill),
      this.prose.element, this.heard, this.badge, this.figures.element,
    );
  }

  update({ lane, step, place, running, waiting, all, still }) {
    const mode = lane?.mode ?? EXPECTED[this.index] ?? `lane ${this.index + 1}`;
    setText(this.mode, modeName(mode));
    setAttr(this.element, 'aria-label', modeName(mode));
    this.element.dataset.mode = mode;
    const cells = lane?.fold.at(step);
    const tokens = lane ? lane.fold.output(cells).length : 0;
    const done = Boolean(lane?.ended) && step >= lane.last;
    this.element.dataset.state = running ? 'live' : done ? 'done' : lane ? 'replay' : 'wait';
    setText(this.state, running ? 'live' : done ? ending(lane.tail?.stop_reason ?? 'error') : lane ? '' : waiting);
    setText(this.place, place === null ? '' : PLACES[place] ?? '');
    if (!lane) return;
    this.fill.style.transform = `scaleX(${lane.steps.length ? (step + 1) / lane.steps.length : 0})`;
    this.prose.update({ lane, cells, step });
    if (still) setText(this.heard, proseText(lane.text(lane.fold.output(cells))));
    this.figures.set('tokens', count(tokens));
    this.figures.set('forwards', count(step + 1));
    this.figures.set('seconds', done && lane.metrics ? seconds(lane.metrics.seconds) : duration(lane.timeAt(step)));
    showMetrics(this.figures, done ? lane.metrics : null);
    this.verdict(lane, all);
  }

  verdict(lane, all) {
    const identical = lane.tail?.identical ?? null;
    this.badge.hidden = identical === null;
    if (identical === null) return;
    const reference = all[identical.to_lane];
    const name = reference?.mode === 'ar' ? 'AR' : modeName(reference?.mode);
    const n = lane.tail.output.ids.length;
    this.badge.dataset.same = String(identical.same);
    setText(this.badge, identical.same ? `identical to ${name} · ${n}/${n} tokens` : `differs from ${name} at token ${identical.first_divergence + 1}`);
  }
}

export class RaceView {
  constructor() {
    this.cards = [];
    this.grid = el('div', 'ndp-lanes');
    this.note = el('p', 'ndp-clock-note');
    this.element = el('div', 'ndp-race', {}, this.note, this.grid, new Legend().element);
  }

  update({ lanes, steps, total, complete, still, note }) {
    setText(this.note, note);
    while (this.cards.length < total) this.cards.push(new LaneCard(this.cards.length));
    for (const card of this.cards.splice(total)) card.element.remove();
    for (const card of this.cards) if (!card.element.isConnected) this.grid.append(card.element);
    const finished = lanes
      .map((lane, index) => ({ index, lane, time: lane?.timeAt(lane.last) }))
      .filter(({ lane, index }) => complete && lane?.ended && steps[index] >= lane.last)
      .sort((a, b) => a.time - b.time)
      .map(({ index }) => index);
    this.cards.forEach((card, index) => {
      const place = finished.indexOf(index);
      card.update({
        lane: lanes[index],
        step: steps[index] ?? -1,
        place: place < 0 ? null : place,
        running: Boolean(lanes[index]) && !lanes[index].ended && !complete,
        waiting: complete ? 'did not run' : 'waits for its turn',
        all: lanes,
        still,
      });
    });
  }

  resized() {}

  key() {
    return false;
  }
}
