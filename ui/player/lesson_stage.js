// What lessons do with the player: open a recorded run at a step and a cell. Wishes are served one after
// another and only the last one counts, so that turning pages quickly never ends on an older page's run.

import { prefersStillness } from './dom.js';

export class Stage {
  constructor(id) {
    this.id = id;
    this.wish = null;
    this.busy = false;
    document.addEventListener('nd-ready', () => this.serve());
  }

  get handle() {
    return window.__nemodiff?.handles?.[this.id] ?? null;
  }

  /** The player's element: keys that are meant for it go there. */
  get element() {
    return document.querySelector(`#${this.id} .ndp`);
  }

  /** Look at {run, lane, step, cell, panel, play}; steps from 0, -1 before the first, cells from 0 or null. */
  show(spot) {
    this.wish = spot;
    this.serve();
  }

  async serve() {
    const { handle } = this;
    if (!handle || this.busy || !this.wish) return;
    this.busy = true;
    const spot = this.wish;
    this.wish = null;
    const what = { lane: spot.lane ?? 0, step: spot.step, panel: spot.panel ?? null };
    if (Number.isInteger(spot.cell)) what.cell = spot.cell;
    else what.position = null;
    try {
      if (handle.store.run === spot.run && handle.store.lanes.length && !handle.store.fault) handle.select(what);
      else await handle.open(spot.run, what);
      this.letAllEnd(spot, what);
      if (spot.play && !this.wish && !prefersStillness()) handle.play();
    } finally {
      this.busy = false;
    }
    this.serve();
  }

  /** Where a lane's last step is wanted, its neighbours on the same clock are shown at their ends as well. */
  letAllEnd({ step }, { lane, panel }) {
    const { handle } = this;
    const lanes = [...handle.store.lanes];
    if (lanes.length < 2 || step !== lanes[lane]?.last) return;
    const lagging = () => window.__nemodiff.players[this.id].lanes.some(({ done }) => !done);
    for (let i = 0; i < lanes.length && lagging(); i += 1) if (lanes[i]) handle.select({ lane: i, step: lanes[i].last });
    handle.select({ lane, panel });
  }

  /** Whether the player shows this lane of this run. */
  shows({ run, lane }) {
    const seen = this.handle?.selection;
    return Boolean(seen) && seen.run === run && seen.lane === lane;
  }

  /** Hand a key to the player, as if it had the focus. */
  key(event) {
    const { element } = this;
    if (!element || element.contains(event.target)) return;
    element.focus({ preventScroll: true });
    element.dispatchEvent(new KeyboardEvent('keydown', { key: event.key, bubbles: true, cancelable: true }));
    event.preventDefault();
  }
}
