// Playback: turns wall-clock time into moments of a track. The measured clock is scaled by a rate; per
// forward, every moment lasts one tick whatever it cost.

import { momentAt } from './track.js';

export const TICK_MS = 140;
const LONGEST_FRAME_MS = 100; // a tab that slept must not leap ahead

export const SINGLE_SPEEDS = [
  { id: '0.25', rate: 0.25, label: '0.25×' },
  { id: '0.5', rate: 0.5, label: '0.5×' },
  { id: '1', rate: 1, label: '1× (real time)' },
  { id: '2', rate: 2, label: '2×' },
  { id: '4', rate: 4, label: '4×' },
  { id: 'tick', rate: null, label: 'one forward per tick' },
];
export const RACE_SPEEDS = [
  { id: '1', rate: 1, label: 'real time' },
  ...[4, 16, 32, 64, 128, 256].map((times) => ({ id: `1/${times}`, rate: 1 / times, label: `slowed ${times}×` })),
  { id: 'tick', rate: null, label: 'one forward per tick' },
];
const RACE_SECONDS = 3; // a race is slowed down until it lasts so long

/** The speed at which a run that took `ns` is pleasant to watch when nobody has chosen one. */
export function suitableSpeed(race, ns) {
  const seconds = ns / 1e9;
  if (!race) return SINGLE_SPEEDS.find((speed) => speed.id === (seconds >= 4 && seconds <= 12 ? '1' : 'tick'));
  const measured = RACE_SPEEDS.filter(({ rate }) => rate); // a race is about the measured clock
  return measured.find(({ rate }) => seconds / rate >= RACE_SECONDS) ?? measured.at(-1);
}

export class Clock {
  /** `position()` tells the moment shown, `track()` the track; `move(i)` shows another, `ended()` follows the last. */
  constructor({ position, track, move, ended }) {
    Object.assign(this, { position, track, move, ended });
    this.speed = SINGLE_SPEEDS.at(-1);
    this.playing = false;
    this.frame = 0;
  }

  play() {
    if (this.playing) return;
    this.playing = true;
    this.rewindTo(this.position());
    let before = performance.now();
    const turn = (now) => {
      if (!this.playing) return;
      this.advance(Math.min(LONGEST_FRAME_MS, Math.max(0, now - before)));
      before = now;
      if (this.playing) this.frame = requestAnimationFrame(turn);
    };
    this.frame = requestAnimationFrame(turn);
  }

  pause() {
    this.playing = false;
    cancelAnimationFrame(this.frame);
  }

  /** Continue from moment `i`, keeping the state of play. */
  rewindTo(i) {
    this.elapsed = this.track().time(i); // ns of the run's own clock
    this.waited = 0; // ms since the last tick
  }

  setSpeed(speed) {
    this.speed = speed;
    this.rewindTo(this.position());
  }

  advance(ms) {
    const track = this.track();
    const last = track.length - 1;
    let next = this.position();
    if (this.speed.rate === null) {
      this.waited += ms;
      const ticks = Math.floor(this.waited / TICK_MS);
      this.waited -= ticks * TICK_MS;
      next = Math.min(last, next + ticks);
    } else {
      this.elapsed += ms * 1e6 * this.speed.rate;
      next = Math.max(next, momentAt(track, this.elapsed));
    }
    if (next !== this.position()) this.move(next);
    if (next >= last) this.ended();
  }
}
