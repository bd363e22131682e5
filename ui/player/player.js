// The player: one component for both views. `mount` is its whole interface.

import { Announcer } from './announce.js';
import { Clock, RACE_SPEEDS, SINGLE_SPEEDS, suitableSpeed } from './clock.js';
import { Controls } from './controls.js';
import { el, prefersStillness } from './dom.js';
import { Focus } from './focus.js';
import { Header, stateOf } from './header.js';
import { Help } from './help.js';
import * as keys from './keys.js';
import { publish, withdraw } from './probe.js';
import { RaceView } from './race.js';
import { RefineView } from './refine.js';
import { Store } from './store.js';
import { ensureStyles, watchTheme } from './style.js';
import { buildTrack, momentAt, momentOf, placeOnScale, scaleValue } from './track.js';
import { raceNote, raceSentence, stepSentence } from './words.js';

class Player {
  constructor(root, options) {
    this.options = options;
    this.index = 0; // the moment shown
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
      escape: () => (this.help.open ? this.help.toggle(false) : this.focus.release()),
      cellKey: (event) => this.view?.key(event) ?? false,
    };
    this.header = new Header();
    this.stage = el('div', 'ndp-stage');
    this.controls = new Controls(act);
    this.announcer = new Announcer();
    this.help = new Help((open) => {
      this.controls.help.setAttribute('aria-expanded', String(open));
      if (!open) this.controls.help.focus();
    });
    this.element = el('div', 'ndp', { role: 'region', 'aria-label': 'Decoding player', tabindex: -1 }, this.header.element, this.stage, this.controls.element, this.announcer.element);
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
    return this.store.run === null ? this.options.view === 'race' : this.store.count > 1;
  }

  get opened() {
    return this.store.lanes.filter(Boolean);
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
    if (this.raceView !== this.race) this.setView();
    if (loaded) this.following = false;
    this.retrack();
    if (loaded) this.open();
    else if (this.race && this.store.live && this.store.complete && this.following) this.replay();
    if (this.store.complete) this.following = false;
  }

  begin() {
    this.clock.pause();
    this.index = 0;
    this.following = true;
    this.autoplay = this.nextAutoplay ?? true;
    this.nextAutoplay = null;
    this.focus.forget();
    // A new live run starts with little text: the page keeps its height, so that nothing jumps.
    this.stage.style.minHeight = this.store.live && this.raceView === this.race ? `${this.stage.offsetHeight}px` : '';
    this.setView();
  }

  setView() {
    this.raceView = this.race;
    this.view = this.race ? new RaceView() : new RefineView(this.focus);
    this.stage.replaceChildren(this.view.element);
    this.element.dataset.view = this.race ? 'race' : 'refine';
    if (!this.speeds.includes(this.clock.speed)) {
      this.chosenSpeed = false;
      this.clock.speed = this.speeds.at(-1);
    }
    this.controls.speeds(this.speeds, this.clock.speed.id);
  }

  /** A complete run has come at once: show it from the beginning, or its end where motion is unwelcome. */
  open() {
    this.suitSpeed();
    const play = this.autoplay && !prefersStillness();
    this.show(play ? 0 : this.track.length - 1);
    if (play) this.clock.play();
  }

  /** All lanes of a live race are in: run them against each other. */
  replay() {
    if (this.store.fault || this.opened.some((lane) => lane.tail?.stop_reason === 'cancelled')) return;
    this.following = false;
    this.open();
  }

  suitSpeed() {
    if (this.chosenSpeed) return;
    const longest = Math.max(0, ...this.opened.map((lane) => lane.timeAt(lane.last)));
    this.applySpeed(suitableSpeed(this.race, longest));
  }

  show(index) {
    this.index = Math.max(0, Math.min(index, this.track.length - 1));
    this.refresh();
  }

  focused() {
    const { pinned } = this.focus;
    if (pinned !== null && pinned !== this.lastPinned) this.options.onPick?.({ position: pinned, step: this.stepsShown[0] ?? -1 });
    this.lastPinned = pinned;
    this.refresh();
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
    this.refresh();
  }

  resized() {
    const width = this.element.clientWidth;
    if (!width || width === this.width) return;
    this.width = width;
    this.stage.style.minHeight = '';
    this.element.dataset.size = width < 560 ? 'narrow' : width < 820 ? 'medium' : 'wide';
    this.view?.resized();
    this.redraw();
  }

  draw() {
    this.pending = 0;
    const { store, race } = this;
    const steps = this.stepsShown;
    const [lane] = this.opened;
    const playing = this.clock.playing;
    const still = !playing && !this.following;
    this.view?.update({ lanes: store.lanes, steps, total: store.count, complete: store.complete, still, note: race && lane ? raceNote(store.complete, this.clock.speed, lane.head.model?.device) : '' });
    const tokens = lane && !race ? lane.output(steps[0]).length : 0;
    const [state, kind] = stateOf(store);
    this.header.update({ lane, race, state, kind, fault: store.fault, reached: steps[0] ?? -1, tokens });
    const sentence = this.sentence(steps);
    this.controls.update({ value: scaleValue(this.track, this.index), max: scaleValue(this.track, this.track.length - 1), playing, sentence, canFollow: !store.complete && !this.following && this.opened.length > 0, disabled: !this.opened.length });
    this.announcer.say(playing ? 'playing' : sentence);
    if (this.timelineStale) this.drawTimeline();
  }

  drawTimeline() {
    this.timelineStale = false;
    this.controls.timeline.draw(this.opened.length ? this.store.lanes : [null], placeOnScale(this.track));
  }

  sentence(steps) {
    if (!this.opened.length) return this.store.fetching ? 'fetching the run' : 'waiting for a run';
    return this.race ? raceSentence(this.store.lanes, steps, this.track, this.index) : stepSentence(this.opened[0].steps, steps[0] ?? -1);
  }

  destroy() {
    this.clock.pause();
    this.store.generation += 1;
    cancelAnimationFrame(this.pending);
    this.announcer.stop();
    this.observer.disconnect();
    this.unlisten();
    this.unwatch();
    withdraw(this);
    this.element.remove();
  }
}

/**
 * Put a player into `root`. Options: `id` names it in `window.__nemodiff.players`; `view` ('refine' or
 * 'race') before there is a run; `resync({run})` fetches a whole run; `onPick({position, step})` hears of pins.
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
    destroy: () => player.destroy(),
  };
}
