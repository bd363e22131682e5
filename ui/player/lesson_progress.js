// How far somebody has come, kept in their own browser. Without storage it lasts as long as the page.

const KEY = 'nemodiff-lessons';

export class Progress {
  constructor() {
    this.held = {};
    try {
      const stored = JSON.parse(window.localStorage.getItem(KEY));
      if (stored && typeof stored === 'object') this.held = stored;
    } catch {
      // nothing stored, or nothing to store in
    }
  }

  /** {part, done} of a lesson; part counts from 0. */
  of(id) {
    const { part, done } = this.held[id] ?? {};
    return { part: Number.isInteger(part) ? part : 0, done: done === true, begun: Number.isInteger(part) };
  }

  reach(id, part, done = false) {
    const before = this.of(id);
    this.held[id] = { part, done: before.done || done };
    try {
      window.localStorage.setItem(KEY, JSON.stringify(this.held));
    } catch {
      // private windows may refuse
    }
  }
}
