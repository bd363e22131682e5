// The Race view: two to four lanes. They ran one after another and are replayed together.

import { el, setAttr, setText } from './dom.js';
import { isEmitted } from './fold.js';
import { FIGURES, Figures, fitFigures, showMetrics } from './header.js';
import { Heard } from './heard.js';
import { Legend } from './legend.js';
import { cellText, proseText } from './pieces.js';
import { Prose } from './prose.js';
import { TimeShares } from './shares.js';
import { count, duration, ending, laneName, laneParts, modeName, modelName, number, plural, seconds } from './words.js';

const ORDER = ['tokens', 'forwards', 'chunks', 'first', 'seconds', 'nfe', 'tpf', 'acceptance', 'rate'];
const PLACES = ['1st', '2nd', '3rd', '4th'];
export const LETTERS = ['A', 'B', 'C', 'D'];

class LaneCard {
  constructor(index, act) {
    this.index = index;
    this.act = act;
    this.name = el('button', 'ndp-lane-name', { type: 'button', title: 'Show this lane in the panels below', onclick: () => act.choose(index) });
    this.mode = el('h3', 'ndp-lane-mode', {}, this.name);
    this.zoom = el('button', 'ndp-chip ndp-lane-open', { type: 'button', text: 'cells', title: 'Show this lane by itself, cell by cell', onclick: () => act.open(index) });
    this.place = el('span', 'ndp-place-badge');
    this.state = el('span', 'ndp-lane-state');
    this.about = el('p', 'ndp-lane-about');
    this.fill = el('span', 'ndp-lane-fill');
    this.prose = new Prose();
    this.heard = new Heard();
    this.figures = new Figures(ORDER.map((key) => FIGURES.find(([name]) => name === key)), 'ndp-figures ndp-lane-figures');
    this.shares = new TimeShares();
    this.badge = el('p', 'ndp-badge');
    this.gap = el('p', 'ndp-gap');
    this.jump = el('button', 'ndp-chip ndp-jump', { type: 'button', text: 'jump to it', title: 'Show the step at which the two part' });
    this.kin = el('p', 'ndp-kin');
    this.problem = el('p', 'ndp-fault', { role: 'alert', hidden: true });
    this.told = el('p', 'ndp-told', { hidden: true });
    this.judged = el('div', 'ndp-judged', { hidden: true }, this.badge, this.jump, this.gap);
    this.element = el(
      'section', 'ndp-lane', {},
      el('div', 'ndp-lane-head', {}, this.mode, this.place),
      el('div', 'ndp-lane-sub', {}, this.about, this.state, this.zoom),
      el('div', 'ndp-lane-track', { 'aria-hidden': 'true' }, this.fill),
      this.prose.element, this.heard.element, this.problem, this.kin, this.judged, this.figures.element, this.told, this.shares.element,
    );
  }

  update({ lane, step, place, running, waiting, all, still, selected, pinned, letter }) {
    const name = lane ? laneName(lane, all) : `Lane ${this.index + 1}`;
    setText(this.name, letter ? `${letter} · ${name}` : name);
    setAttr(this.name, 'aria-pressed', String(selected));
    this.element.dataset.selected = String(selected);
    setAttr(this.element, 'aria-label', name);
    setAttr(this.element, 'data-mode', lane?.mode ?? null);
    const cells = lane?.fold.at(step);
    const tokens = lane ? lane.length(step) : 0;
    const done = Boolean(lane?.ended) && step >= lane.last;
    this.element.dataset.state = running ? 'live' : done ? 'done' : lane ? 'replay' : 'wait';
    setText(this.state, running ? 'live' : done ? ending(lane.tail?.stop_reason ?? 'error') : lane ? '' : waiting);
    setText(this.place, place === null ? '' : PLACES[place] ?? '');
    this.zoom.hidden = !lane;
    if (!lane) return;
    this.describe(lane, all);
    this.fill.style.transform = `scaleX(${lane.steps.length ? (step + 1) / lane.steps.length : 0})`;
    this.prose.update({ lane, cells, step }, pinned, still);
    const parent = lane.ended && lane.head.parent ? all.find((other) => other?.head.id === lane.head.parent.trace) : null;
    this.prose.compare(parent ?? null);
    setText(this.kin, parent?.tail && lane.tail ? kinship(lane.tail.output.ids, parent.tail.output.ids) : '');
    if (still) this.heard.update({ lane, cells, length: tokens });
    this.figures.set('tokens', count(lane.remote && done ? (lane.metrics?.tokens ?? NaN) : lane.counted(tokens)));
    this.figures.set('forwards', count(step + 1));
    this.figures.set('chunks', count(step + 1));
    fitFigures(this.figures, lane, all.some((other) => other?.remote));
    this.tell(lane, done);
    this.figures.set('seconds', done && lane.metrics ? seconds(lane.metrics.seconds) : duration(lane.timeAt(step)));
    showMetrics(this.figures, done ? lane.metrics : null);
    this.shares.element.hidden = lane.remote;
    this.shares.update(done ? lane.metrics?.time_by_phase : null);
    this.judge(lane, all);
  }

  /** All settings, and the prompt where it is another than the first lane's. */
  describe(lane, all) {
    const first = all.find(Boolean);
    if (this.described === lane && this.beside === first) return;
    this.described = lane;
    this.beside = first;
    // Servers do not say which tokens they read.
    const same = lane.remote || first.remote ? lane.request.prompt === first.request.prompt : lane.head.prompt?.ids?.join() === first.head.prompt?.ids?.join();
    const other = same ? [] : [`another prompt: “${proseText(String(lane.request.prompt ?? '')).slice(0, 60)}”`];
    const seen = lane.remote ? [modelName(lane.head.model), 'as the client saw it'] : [];
    setText(this.about, [...seen, ...laneParts(lane.request), ...other].join(' · '));
  }

  /** What a server's answer says of itself at its end: what went wrong, and what its statistics file counted. */
  tell(lane, done) {
    const told = done ? lane.told : null;
    setText(this.problem, told?.problem ?? '');
    this.problem.hidden = !told?.problem;
    this.told.hidden = !told?.blocks?.length;
    if (!this.told.hidden) setText(this.told, statistics(told.blocks));
  }

  judge(lane, all) {
    const identical = lane.tail?.identical ?? null;
    this.judged.hidden = identical === null;
    if (identical === null) return;
    const reference = all[identical.to_lane];
    const name = reference?.mode === 'ar' ? 'AR' : modeName(reference?.mode);
    const ours = lane.tail.output.ids;
    const { same, first_divergence: at, gap } = identical;
    this.badge.dataset.same = String(same);
    setText(this.badge, same ? `identical to ${name} · ${ours.length}/${ours.length} tokens` : `differs from ${name} at token ${at + 1}`);
    this.jump.hidden = same || at >= ours.length;
    this.gap.hidden = same;
    if (same) return;
    this.jump.onclick = () => this.act.jump(this.index, settledAt(lane, lane.start + at), lane.start + at);
    setText(this.gap, parting({ lane, reference, name, at, gap }));
  }
}

/** What the server's own file counted while the lane ran. */
function statistics(blocks) {
  const sum = (name) => blocks.reduce((total, block) => total + (block[name] ?? 0), 0);
  return `While this lane ran, the server’s statistics file counted ${plural(blocks.length, 'block')}: ${plural(sum('tokens'), 'token')} in ${plural(sum('forward_passes'), 'forward')} as it counts them, other requests included.`;
}

/** In how much a child's text differs from its parent's: the slots that are marked. */
function kinship(ours, theirs) {
  const differing = ours.filter((id, i) => id !== theirs[i]).length;
  return differing ? `differs from its parent in ${plural(differing, 'token')}, marked above` : 'the same text as its parent’s, as far as it goes';
}

/** What the two lanes wrote where they part, and how close it was. */
function parting({ lane, reference, name, at, gap }) {
  const ours = lane.tail.output.ids;
  const theirs = reference?.tail?.output?.ids ?? [];
  if (at >= ours.length) return `${name} went on where this lane ended`;
  if (at >= theirs.length) return `${name} ended where this lane went on`;
  const words = `${name} wrote “${cellText(reference.piece(theirs[at]))}”, this lane “${cellText(lane.piece(ours[at]))}”`;
  return `${words}; logit gap ${Number.isFinite(gap) ? number(gap, Math.abs(gap) < 0.1 ? 4 : 2) : 'not recorded'}`;
}

/** The step that gave a position its final token. */
function settledAt(lane, position) {
  const cell = lane.fold.newest.cells.get(position);
  return isEmitted(cell) ? cell.step : lane.last;
}

/** What a blind race has shown once the vote is in, and the way to the next prompt. */
class Revealed {
  constructor(next) {
    this.text = el('p', 'ndp-revealed-text');
    this.next = el('button', 'ndp-vote ndp-next', { type: 'button', onclick: next });
    this.element = el('div', 'ndp-revealed', { hidden: true }, this.text, this.next);
  }

  update(blind, lanes) {
    this.element.hidden = !blind;
    if (!blind) return;
    const chosen = blind.best.map((index) => `${LETTERS[index]}, ${laneName(lanes[index], lanes)}`);
    const said = chosen.length ? `You preferred ${chosen.join(', and ')}.` : 'You called all of them bad.';
    setText(this.text, blind.of > 1 ? `Prompt ${blind.number + 1} of ${blind.of}. ${said}` : said);
    this.next.hidden = blind.number + 1 >= blind.of;
    setText(this.next, `Next prompt (${blind.number + 2} of ${blind.of})`);
  }
}

export class RaceView {
  /**
   * `act`: `choose(lane)` when somebody picks a lane, `open(lane)` when they want to see it by itself,
   * `jump(lane, step, position)` to look at a cell, `next()` for the next prompt of a blind race.
   */
  constructor(act) {
    this.act = act;
    this.cards = [];
    this.grid = el('div', 'ndp-lanes');
    this.note = el('p', 'ndp-clock-note');
    this.revealed = new Revealed(() => act.next());
    this.element = el('div', 'ndp-race', {}, this.revealed.element, this.note, this.grid, new Legend().element);
  }

  update({ lanes, steps, selected, total, complete, still, note, pinned = null, blind = null }) {
    setText(this.note, note);
    this.revealed.update(blind, lanes);
    setAttr(this.grid, 'data-lanes', total);
    while (this.cards.length < total) this.cards.push(new LaneCard(this.cards.length, this.act));
    for (const card of this.cards.splice(total)) card.element.remove();
    for (const card of this.cards) if (!card.element.isConnected) this.grid.append(card.element);
    const finished = lanes
      .map((lane, index) => ({ index, lane, time: lane?.timeAt(lane.last) }))
      .filter(({ lane, index }) => complete && lane?.ended && steps[index] >= lane.last)
      .sort((a, b) => a.time - b.time)
      .map(({ index }) => index);
    const start = lanes[selected]?.start;
    this.cards.forEach((card, index) => {
      const lane = lanes[index];
      const place = finished.indexOf(index);
      card.update({
        lane,
        step: steps[index] ?? -1,
        place: place < 0 ? null : place,
        running: Boolean(lane) && !lane.ended && !complete,
        waiting: complete ? 'did not run' : 'waits for its turn',
        all: lanes,
        still,
        selected: index === selected,
        pinned: lane?.start === start ? pinned : null, // the same position is the same place only behind prompts of one length
        letter: blind ? LETTERS[index] : '',
      });
    });
  }

  resized() {}

  key() {
    return false;
  }
}
