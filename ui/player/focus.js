// Which position the inspector looks at. Hovering or focusing a cell is passing; a pinned position stays
// until it is released, whatever step is shown.

export class Focus {
  constructor(changed) {
    this.changed = changed;
    this.passing = null;
    this.pinned = null;
  }

  get position() {
    return this.pinned ?? this.passing;
  }

  pass(position) {
    if (position === this.passing) return;
    this.passing = position;
    if (this.pinned === null) this.changed();
  }

  /** Pin a position, or release it when it is the pinned one. */
  toggle(position) {
    this.pinned = position === this.pinned ? null : position;
    this.changed();
  }

  /** Pin a position, or none. */
  pin(position) {
    if (position === this.pinned) return;
    this.pinned = position;
    this.changed();
  }

  release() {
    const held = this.pinned !== null;
    this.pinned = null;
    if (held) this.changed();
    return held;
  }

  forget() {
    this.passing = null;
    this.pinned = null;
    this.changed();
  }
}
