// The panels below the stage: one at a time, each another look at the same run, step and cell. A panel is a
// module that exports {id, title, fits(lane, context), make(context)}; what `make` returns has `element`,
// `update(frame)` and, where it needs them, `resized()` and `closed()`. Only the panel in view is updated.
//
// context: {focus, seek(step), select({lane, step, position}), send(name, data), canSend, refresh(), root()} of the player.
// frame: {lane, number, lanes, steps, step, cells, span, still, stale}; `number` is the lane's own number,
// `cells` the canvas of `step` (valid until the fold is asked again), and `stale` says that steps, theme or
// size have changed since this panel's last update.

import { el, setAttr } from './dom.js';

export class Dock {
  constructor(panels, context) {
    this.panels = panels;
    this.context = context;
    this.made = new Map();
    this.open = null;
    this.wanted = null; // stays wanted while a run has no use for it
    this.stale = new Set();
    this.tabs = el('div', 'ndp-tabs', { role: 'tablist', 'aria-label': 'More about this step', onkeydown: (event) => this.key(event) });
    this.buttons = new Map();
    for (const panel of panels) {
      const button = el('button', 'ndp-tab', { type: 'button', role: 'tab', text: panel.title, 'aria-selected': 'false', tabindex: -1, 'data-panel': panel.id, onclick: () => this.toggle(panel.id) });
      this.buttons.set(panel.id, button);
      this.tabs.append(button);
    }
    this.body = el('div', 'ndp-panel', { role: 'tabpanel', hidden: true });
    this.element = el('section', 'ndp-dock', { 'aria-label': 'Panels' }, this.tabs, this.body);
  }

  /** Open a panel by id, or none. */
  show(id) {
    this.wanted = this.panels.some((panel) => panel.id === id) ? id : null;
    this.settle();
  }

  toggle(id) {
    this.show(this.wanted === id && this.open === id ? null : id);
    this.context.refresh();
  }

  /** Open or close the panel whose tab is the n-th of those shown. */
  toggleNumber(n) {
    const shown = this.panels.filter((panel) => !this.buttons.get(panel.id).hidden);
    if (shown[n]) this.toggle(shown[n].id);
  }

  /** Open what is wanted, where it fits the lane in view. */
  settle() {
    const fits = (panel) => !this.lane || panel.fits(this.lane, this.context);
    const next = this.panels.find((panel) => panel.id === this.wanted && fits(panel))?.id ?? null;
    for (const panel of this.panels) this.buttons.get(panel.id).hidden = !fits(panel);
    this.element.hidden = !this.lane;
    if (next !== this.open) {
      this.made.get(this.open)?.closed?.();
      this.open = next;
      this.body.replaceChildren(...(next ? [this.panel(next).element] : []));
      this.stale.add(next);
    }
    this.body.hidden = next === null;
    if (next) setAttr(this.body, 'aria-label', this.panels.find((panel) => panel.id === next).title);
    const reachable = next ?? this.panels.find(fits)?.id;
    for (const [id, button] of this.buttons) {
      setAttr(button, 'aria-selected', String(id === next));
      setAttr(button, 'tabindex', id === reachable ? 0 : -1);
    }
  }

  panel(id) {
    if (!this.made.has(id)) this.made.set(id, this.panels.find((panel) => panel.id === id).make(this.context));
    return this.made.get(id);
  }

  update(frame) {
    if (frame.lane !== this.lane) {
      this.lane = frame.lane;
      this.outdate();
    }
    this.settle();
    if (!this.open || !frame.lane) return;
    this.panel(this.open).update({ ...frame, stale: this.stale.delete(this.open) });
  }

  /** Steps, theme or size have changed. */
  outdate() {
    for (const panel of this.panels) this.stale.add(panel.id);
  }

  resized() {
    this.outdate();
    this.made.get(this.open)?.resized?.();
  }

  /** Arrow keys go from tab to tab, as in any tab list. */
  key(event) {
    const shown = [...this.buttons.values()].filter((button) => !button.hidden);
    const at = shown.indexOf(event.target);
    const moves = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: shown.length - 1 };
    if (at < 0 || !(event.key in moves)) return;
    event.preventDefault();
    event.stopPropagation();
    shown[(moves[event.key] + shown.length) % shown.length].focus();
  }
}
