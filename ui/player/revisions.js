// Which cells were revised: their token was part of the text, or of the draft that a refinement was given, and
// then became another. A mask in between does not matter; a token that comes back unchanged was not revised.

const EMITTING = new Set(['seed', 'commit', 'accept', 'bonus', 'pin']);

export class Revisions {
  constructor(mode) {
    this.holding = new Set(EMITTING);
    if (mode === 'refine') this.holding.add('draft'); // the text to revise is shown as drafts
    this.held = new Map(); // position -> the token that last stood there
    this.made = new Map(); // position -> [{step, from, to}], in order
  }

  push(step, index) {
    for (const { position, token, kind } of step.events) {
      if (!this.holding.has(kind)) continue;
      const from = this.held.get(position);
      this.held.set(position, token);
      if (from === undefined || from === token) continue;
      if (!this.made.has(position)) this.made.set(position, []);
      this.made.get(position).push({ step: index, from, to: token });
    }
  }

  /** The last revision of `position` at or before step `index`, or null. */
  at(position, index) {
    const list = this.made.get(position);
    if (list === undefined) return null;
    let found = null;
    for (const revision of list) if (revision.step <= index) found = revision;
    return found;
  }
}
