// The player: one component for both views. `mount` is its whole interface.

import { Announcer } from './announce.js';
import { BlindView } from './blind.js';
import { Clock, RACE_SPEEDS, SINGLE_SPEEDS, suitableSpeed } from './clock.js';
import { Controls } from './controls.js';
import { Dock } from './dock.js';
import { Family } from './family.js';
import { el, prefersStillness, setAttr } from './dom.js';
import { ExportMenu } from './export.js';
import { Focus } from './focus.js';
import { Header, stateOf } from './header.js';
import { Help } from './help.js';
import * as keys from './keys.js';
import { PANELS } from './panels.js';
import { publish, withdraw } from './probe.js';
import { RaceView } from './race.js';
import { RefineView } from './refine.js';
import { Store } from './store.js';
import { ensureStyles, watchTheme } from './style.js';
import { buildTrack, momentAt, momentOf, placeOnScale, scaleValue } from './track.js';
import { raceNote, raceSentence, raceTitle, stepSentence } from './words.js';

const FAST_MS = 90; // steps that follow each other faster are drawn without transitions

class Player {
  constructor(root, options) {
    this.options = options;
    this.index = 0; // the moment shown
    this.alone = null; // the one lane of several that is shown by itself
    this.parting = false; // a what-if has begun whose child is to be looked at
    this.asked = null; // id of the trace that a what-if was asked for, until its run begins
    this.family = new Family();
    this.lane = 0; // the lane that keys, inspector and panels are about
    this.following = false; // the newest moment is shown as it comes
    this.chosenSpeed = false;
    this.store = new Store({ resync: options.resync, changed: (what) => this.changed(what) });
    this.clock = new Clock({
      position: () => this.index,
      track: () => this.track,
      move: (index) => this.show(index),
      ended: () => this.reachedEnd(),
    });
    this.focus = new Focus(() => this.focused());
    this.build(root);
    this.setView();
    this.retrack();
    publish(this);
    this.refresh();
  }

  build(root) {
    const act = {
      toggle: () => this.toggle(),
      step: (by) => this.seekMoment(this.index + by),
      first: () => this.seekMoment(0),
      last: () => this.seekMoment(this.track.length - 1),
      seek: (value) => this.seekMoment(momentOf(this.track, value)),
      follow: () => this.follow(),
      speed: (id) => this.setSpeed(id),
      changeSpeed: (by) => this.changeSpeed(by),
      help: () => this.help.toggle(),
      panel: (n) => this.dock.toggleNumber(n),
      escape: () => (this.help.open ? this.help.toggle(false) : this.focus.release()),
      cellKey: (event) => this.view?.key(event) ?? false,
    };
    this.exports = new ExportMenu({
      base: this.options.base,
      served: this.options.exports !== false,
      source: () => ({ run: this.store.run, lane: this.store.lanes[this.lane] ?? null, lanes: this.store.lanes, root: this.element }),
      changed: () => this.refresh(),
    });
    act.menu = this.exports.element;
    this.header = new Header();
    this.stage = el('div', 'ndp-stage');
    this.controls = new Controls(act);
    this.dock = new Dock(PANELS, {
      focus: this.focus,
      seek: (step) => this.select({ step }),
      select: (what) => this.select(what),
      send: (name, data) => this.send(name, data),
      canSend: Boolean(this.options.send),
      open: (run, what) => this.open(run, what),
      family: this.family,
      refresh: () => this.refresh(),
      root: () => this.element,
    });
    this.announcer = new Announcer();
    this.help = new Help((open) => {
      this.controls.help.setAttribute('aria-expanded', String(open));
      if (!open) this.controls.help.focus();
    });
    this.element = el('div', 'ndp', { role: 'region', 'aria-label': 'Decoding player', tabindex: -1 }, this.header.element, this.stage, this.controls.element, this.dock.element, this.announcer.element);
    this.controls.element.append(this.help.element); // beside its button, wherever the page is scrolled to
    root.replaceChildren(this.element);
    ensureStyles(this.element, () => this.resized());
    this.unlisten = keys.listen(this.element, act);
    this.unwatch = watchTheme(this.element, () => this.redraw());
    this.observer = new ResizeObserver(() => this.resized());
    this.observer.observe(this.element);
  }

  // -- what is shown ------------------------------------------------------------------------------

  get race() {
    return this.store.run === null ? this.options.view === 'race' : this.store.count > 1 && this.alone === null;
  }

  /** A race that nobody has voted on yet: its lanes must not be told apart by anything but their answers. */
  get blind() {
    return this.race && this.store.blind?.best === null;
  }

  get kind() {
    return this.blind ? 'blind' : this.race ? 'race' : 'refine';
  }

  /** The lanes on show. */
  get opened() {
    return this.alone === null ? this.store.lanes.filter(Boolean) : [this.store.lanes[this.alone]];
  }

  get speeds() {
    return this.race ? RACE_SPEEDS : SINGLE_SPEEDS;
  }

  /** Steps of each lane at the moment shown, by lane number. */
  get stepsShown() {
    const steps = this.opened.length ? this.track.steps(this.index) : [];
    const shown = [];
    for (const [number, lane] of this.store.lanes.entries()) if (lane) shown[number] = steps[this.opened.indexOf(lane)];
    return shown;
  }

  retrack() {
    this.track = buildTrack(this.opened, this.clock.speed.rate === null);
    this.index = this.following ? this.track.length - 1 : Math.min(this.index, this.track.length - 1);
    this.redraw();
  }

  changed({ reset, loaded }) {
    if (reset) this.begin();
    if (this.kindShown !== this.kind) this.setView();
    if (this.parting && this.store.lanes[1]) {
      this.parting = false;
      this.lane = 1;
    }
    if (loaded) this.following = false;
    this.retrack();
    if (loaded) this.present();
    else if (this.kind === 'race' && this.store.live && this.store.complete && this.following) this.replay();
    if (this.store.complete) this.following = false;
    if (this.store.run !== null) this.family.note(this.store.run, this.store.lanes);
  }

  begin() {
    this.clock.pause();
    this.index = 0;
    this.alone = null;
    this.following = true;
    this.autoplay = this.nextAutoplay ?? true;
    this.nextAutoplay = null;
    // A what-if begins with its parent, whose cell stays in view; any other run has cells of its own.
    this.parting = this.asked !== null && this.store.lanes[0]?.head.id === this.asked;
    this.asked = null;
    if (!this.parting) this.focus.forget();
    // A new live run starts with little text: the page keeps its height, so that nothing jumps.
    this.stage.style.minHeight = this.store.live && this.kindShown === this.kind ? `${this.stage.offsetHeight}px` : '';
    this.setView();
  }

  setView() {
    this.kindShown = this.kind;
    this.lane = this.alone ?? 0;
    this.view = this.makeView();
    this.stage.replaceChildren(this.view.element);
    this.element.dataset.view = this.race ? 'race' : 'refine';
    this.controls.element.hidden = this.blind;
    if (!this.speeds.includes(this.clock.speed)) {
      this.chosenSpeed = false;
      this.clock.speed = this.speeds.at(-1);
    }
    this.controls.speeds(this.speeds, this.clock.speed.id);
  }

  makeView() {
    if (this.blind) return new BlindView((best) => this.vote(best));
    if (!this.race) return new RefineView(this.focus);
    return new RaceView({
      choose: (lane) => this.select({ lane }),
      open: (lane) => this.solo(lane),
      jump: (lane, step, position) => this.select({ lane, step, position }),
      next: () => this.options.next?.(this.store.run),
    });
  }

  /** Hand in a vote; what it could not be kept for, as a sentence. */
  async vote(best) {
    const { run } = this.store;
    const answer = await Promise.resolve(this.options.vote?.({ run, best })).catch(() => null);
    if (this.store.run !== run) return null;
    if (!answer?.blind) return String(answer?.error ?? 'The server does not answer; vote again in a moment.');
    this.store.voted(answer.blind);
    this.options.voted?.();
    return null;
  }

  /** A complete run has come at once: show it from the beginning, or its end where motion is unwelcome. */
  present() {
    this.suitSpeed();
    const play = this.autoplay && !prefersStillness();
    this.show(play ? this.beginning() : this.track.length - 1);
    if (play) this.clock.play();
  }

  /** The moment from which to play: where a child parts from its parent, if they stand side by side. */
  beginning() {
    const child = this.opened.find((lane) => this.opened.some(({ head }) => head.id === lane.head.parent?.trace));
    return child ? this.momentOf(child, child.head.parent.step) : 0;
  }

  /** All lanes of a live race are in: run them against each other. */
  replay() {
    if (this.store.fault || this.opened.some((lane) => lane.tail?.stop_reason === 'cancelled')) return;
    this.following = false;
    this.present();
  }

  suitSpeed() {
    if (this.chosenSpeed) return;
    const longest = Math.max(0, ...this.opened.map((lane) => lane.timeAt(lane.last)));
    this.applySpeed(suitableSpeed(this.race, longest));
  }

  show(index) {
    const now = performance.now();
    this.fast = this.clock.playing && (now - this.shownAt < FAST_MS || Math.abs(index - this.index) > 1);
    this.shownAt = now;
    this.index = Math.max(0, Math.min(index, this.track.length - 1));
    this.refresh();
  }

  focused() {
    this.refresh();
  }

  /** What is looked at: run, lane, step (-1: before the first) and the pinned position, if any. */
  get selection() {
    return { run: this.store.run, lane: this.lane, step: this.stepsShown[this.lane] ?? -1, position: this.focus.pinned, panel: this.dock.open };
  }

  /**
   * Look at another lane, step or cell; what is left out stays as it is, and `position: null` unpins. `cell` is
   * a position counted from the start of the answer.
   */
  select({ lane, step, position, cell, panel } = {}) {
    if (Number.isInteger(lane) && this.store.lanes[lane]) this.lane = lane;
    const shown = this.store.lanes[this.lane];
    if (Number.isInteger(cell) && shown) position = shown.start + cell;
    if (Number.isInteger(step) && shown) {
      this.seekMoment(this.momentOf(shown, Math.max(-1, Math.min(step, shown.last))));
    }
    if (position !== undefined) this.focus.pin(position);
    if (panel !== undefined) this.dock.show(panel);
    this.refresh();
  }

  /** The moment at which a lane stands at a step. */
  momentOf(lane, step) {
    return this.track.byTime ? momentAt(this.track, lane.timeAt(step)) : step + 1;
  }

  /** Show one lane of several by itself, at the step it is at, or all of them again. */
  solo(lane) {
    const number = lane ?? this.alone;
    const step = this.stepsShown[number] ?? -1;
    this.clock.pause();
    this.following = false;
    this.alone = lane;
    this.setView();
    this.retrack();
    this.select({ lane: number, step });
  }

  /** Fetch a run by id and look at a step of it: {lane, step, cell, panel}; without a step it plays. */
  async open(run, what = {}) {
    this.nextAutoplay = !Number.isInteger(what.step);
    if (run !== this.store.run) await this.store.open(run);
    this.select(what);
  }

  /** Ask the page for something that needs the model; says nothing where there is no page around the player. */
  send(name, data = {}) {
    if (name === 'fork') this.asked = this.store.lanes[this.lane]?.head.id ?? null;
    this.options.send?.(name, { ...this.selection, ...data });
  }

  /** Tell the page what is looked at, once the picture stands still. */
  tell() {
    const now = JSON.stringify(this.selection);
    if (now === this.told) return;
    this.told = now;
    this.element.dispatchEvent(new CustomEvent('nd-select', { bubbles: true, detail: this.selection }));
  }

  // -- actions ------------------------------------------------------------------------------------

  toggle() {
    if (this.clock.playing) this.clock.pause();
    else if (this.following) this.following = false;
    else if (this.opened.length) {
      if (this.index >= this.track.length - 1) this.show(0);
      this.clock.play();
    }
    this.refresh();
  }

  seekMoment(index) {
    this.following = false;
    this.clock.pause();
    this.show(index);
  }

  follow() {
    this.clock.pause();
    this.following = true;
    this.show(this.track.length - 1);
  }

  reachedEnd() {
    this.clock.pause();
    if (!this.store.complete) this.following = true;
    this.refresh();
  }

  setSpeed(id) {
    this.chosenSpeed = true;
    this.applySpeed(this.speeds.find((speed) => speed.id === id) ?? this.clock.speed);
  }

  changeSpeed(by) {
    const list = this.speeds;
    const next = list[Math.max(0, Math.min(list.length - 1, list.indexOf(this.clock.speed) + by))];
    this.setSpeed(next.id);
  }

  applySpeed(speed) {
    const counted = this.clock.speed.rate === null;
    const before = this.track;
    const { index } = this;
    this.clock.speed = speed;
    if (this.race && counted !== (speed.rate === null) && this.opened.length) {
      // The two kinds of track count differently: keep the furthest lane where it was.
      const steps = before.steps(index);
      const time = before.time(index);
      this.retrack();
      this.index = counted ? momentAt(this.track, time) : Math.max(...steps) + 1;
    }
    this.clock.setSpeed(speed);
    this.controls.speed.value = speed.id;
    this.redraw();
  }

  // -- drawing ------------------------------------------------------------------------------------

  refresh() {
    if (this.pending) return;
    this.pending = requestAnimationFrame(() => this.draw());
  }

  redraw() {
    this.timelineStale = true;
    this.dock?.outdate();
    this.refresh();
  }

  resized() {
    const width = this.element.clientWidth;
    if (!width || width === this.width) return;
    this.width = width;
    this.stage.style.minHeight = '';
    this.element.dataset.size = width < 560 ? 'narrow' : width < 820 ? 'medium' : 'wide';
    this.view?.resized();
    this.dock.resized();
    this.redraw();
  }

  draw() {
    this.pending = 0;
    const { store, race } = this;
    const steps = this.stepsShown;
    const [lane] = this.opened;
    const playing = this.clock.playing;
    const still = !playing && !this.following;
    setAttr(this.element, 'data-fast', playing && this.fast ? 'true' : null);
    this.view?.update({ lanes: store.lanes, steps, selected: this.lane, total: store.count, complete: store.complete, still, pinned: this.focus.pinned, blind: store.blind, note: this.kind === 'race' && lane ? raceNote(store.complete, this.clock.speed, this.opened) : '' });
    const tokens = lane && !race ? lane.length(steps[this.lane]) : 0;
    const [state, kind] = stateOf(store);
    this.header.update({ lane, race, title: race ? this.title() : '', models: this.opened.map(({ head }) => head.model?.id), state, kind, fault: store.fault ?? this.exports.problem, reached: steps[this.lane] ?? -1, tokens, back: this.alone === null ? null : () => this.solo(null) });
    const sentence = this.sentence(steps);
    this.controls.update({ value: scaleValue(this.track, this.index), max: scaleValue(this.track, this.track.length - 1), playing, sentence, canFollow: !store.complete && !this.following && this.opened.length > 0, disabled: !this.opened.length });
    this.announcer.say(playing ? 'playing' : sentence);
    if (this.timelineStale) this.drawTimeline();
    this.drawDock(steps, still);
    if (still) this.tell();
  }

  drawDock(steps, still) {
    const { lanes } = this.store;
    const lane = (this.blind ? null : lanes[this.lane]) ?? null;
    const step = steps[this.lane] ?? -1;
    const frame = lane && { cells: lane.fold.at(step), span: lane.spanAt(step) };
    this.dock.update({ lane, number: this.lane, lanes, steps, step, still, ...frame });
  }

  title() {
    return this.blind ? 'Blind comparison' : raceTitle(this.opened, this.store.count);
  }

  drawTimeline() {
    this.timelineStale = false;
    if (this.blind) {
      this.controls.timeline.draw([null], placeOnScale(this.track));
      return;
    }
    this.controls.timeline.draw(this.alone !== null ? this.opened : this.opened.length ? this.store.lanes : [null], placeOnScale(this.track));
  }

  sentence(steps) {
    if (this.blind) return '';
    if (!this.opened.length) return this.store.fetching ? 'fetching the run' : 'waiting for a run';
    return this.race ? raceSentence(this.store.lanes, steps, this.track, this.index) : stepSentence(this.opened[0].steps, steps[this.lane] ?? -1);
  }

  destroy() {
    this.clock.pause();
    this.store.generation += 1;
    cancelAnimationFrame(this.pending);
    this.announcer.stop();
    this.exports.stop();
    this.observer.disconnect();
    this.unlisten();
    this.unwatch();
    withdraw(this);
    this.element.remove();
  }
}

/**
 * Put a player into `root`. Options: `id` names it in `window.__nemodiff.players`; `view` ('refine' or
 * 'race') before there is a run; `resync({run})` fetches a whole run; `send(name, data)` takes what needs the
 * model; `vote({run, best})` keeps the vote on a blind race, after which `voted()` is called, and `next(run)` asks
 * for the next prompt of its list; `base` is the path of the server that exports come from ('' by default), and
 * `exports: false` says there is none.
 * The element fires `nd-select` whenever what is looked at has changed and stands still.
 */
export function mount(root, options = {}) {
  const player = new Player(root, options);
  const load = (traces, tails, play) => {
    player.nextAutoplay = play;
    player.store.loadTraces(traces, tails);
  };
  return {
    receive: (json) => player.store.receive(json),
    load: (trace, { play = false, tail = {} } = {}) => load([trace], [tail], play),
    loadRace: (traces, tails = [], { play = true } = {}) => load(traces, tails, play),
    select: (what) => player.select(what),
    open: (run, what) => player.open(run, what),
    solo: (lane) => player.solo(lane),
    save: () => player.exports.deliver('json'), // answers with what went wrong, or ''
    play: () => (player.clock.playing ? undefined : player.toggle()),
    destroy: () => player.destroy(),
    get selection() {
      return player.selection;
    },
    get store() {
      return player.store;
    },
  };
}
