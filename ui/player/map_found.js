// Beside the map: how many wrong commits are known, a way from one to the next, or a way to look for them.

import { el, setText } from './dom.js';
import { plural } from './words.js';

const PATIENCE_MS = 8000; // after which the page may be asked again

export class Found {
  /** `visit(note)` shows a wrong commit. */
  constructor(context, visit) {
    this.context = context;
    this.visit = visit;
    this.waiting = false;
    this.verdict = el('span');
    this.next = el('button', 'ndp-chip', { type: 'button', text: 'Next wrong commit', onclick: () => this.visit(this.following()) });
    this.ask = el('button', 'ndp-chip', { type: 'button', onclick: () => this.explain() });
    this.element = el('span', 'ndp-map-found', {}, this.verdict, this.next, this.ask);
  }

  update(findings, frame) {
    Object.assign(this, { findings, frame });
    const { wrong, regret } = findings;
    const looked = wrong.length > 0 || regret !== null;
    setText(this.verdict, wrong.length ? plural(wrong.length, 'wrong commit') : looked ? 'no wrong commits' : '');
    this.verdict.hidden = !looked;
    this.next.hidden = !wrong.length;
    this.ask.hidden = looked || !this.context.canSend || !frame.lane.ended || frame.lane.remote;
    this.ask.disabled = this.waiting;
    setText(this.ask, this.waiting ? 'Looking for wrong commits…' : 'Look for wrong commits');
    this.element.hidden = this.verdict.hidden && this.ask.hidden;
  }

  /** Another run: nothing was asked about it yet. */
  forget() {
    clearTimeout(this.patience);
    this.waiting = false;
  }

  explain() {
    const wait = (waiting) => {
      this.waiting = waiting;
      this.update(this.findings, this.frame);
    };
    wait(true);
    clearTimeout(this.patience);
    this.patience = setTimeout(() => wait(false), PATIENCE_MS);
    this.context.send('explain');
  }

  /** The first wrong commit behind the step and cell looked at, and the first of all after the last. */
  following() {
    const { wrong } = this.findings;
    const { step } = this.frame;
    const position = this.context.focus.pinned;
    const atOne = wrong.some((note) => note.step === step && note.position === position);
    const behind = (note) => note.step > step || (note.step === step && (!atOne || note.position > position));
    return wrong.find(behind) ?? wrong[0];
  }
}
