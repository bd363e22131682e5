// Says to screen readers what the step line shows, but never faster than it can be heard.

import { el, setText } from './dom.js';

const GAP_MS = 1500;

export class Announcer {
  constructor() {
    this.element = el('div', 'ndp-heard', { role: 'status', 'aria-live': 'polite', 'aria-atomic': 'true' });
    this.spoken = 0;
    this.timer = 0;
  }

  /** Say `sentence` now, or once the last one has had its time; a newer sentence replaces a waiting one. */
  say(sentence) {
    if (sentence === this.sentence) return;
    this.sentence = sentence;
    if (this.timer) return;
    const wait = Math.max(120, this.spoken + GAP_MS - performance.now());
    this.timer = setTimeout(() => {
      this.timer = 0;
      this.spoken = performance.now();
      setText(this.element, this.sentence);
    }, wait);
  }

  stop() {
    clearTimeout(this.timer);
    this.timer = 0;
  }
}
