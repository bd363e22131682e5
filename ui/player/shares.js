// Where a run's time went: one bar, divided among the phases of its forwards. The seconds come from Python.

import { el, setAttr } from './dom.js';

const PHASES = ['prefill', 'ar', 'denoise', 'draft', 'verify', 'commit', 'revise'];

export class TimeShares {
  constructor() {
    this.bar = el('div', 'ndp-shares-bar', { 'aria-hidden': 'true' });
    this.words = el('p', 'ndp-shares-words');
    this.element = el('div', 'ndp-shares', { title: 'Share of the time in the forwards of each phase' }, this.bar, this.words);
  }

  /** `byPhase`: seconds by phase, null before the end of the run. */
  update(byPhase) {
    const phases = PHASES.filter((phase) => byPhase?.[phase] > 0);
    const key = phases.map((phase) => `${phase} ${byPhase[phase]}`).join();
    if (key === this.key) return;
    this.key = key;
    setAttr(this.element, 'data-empty', phases.length === 0);
    const whole = phases.reduce((sum, phase) => sum + byPhase[phase], 0);
    const colour = (phase) => `--nd-mark:var(--nd-phase-${phase})`;
    this.bar.replaceChildren(...phases.map((phase) => el('span', '', { 'data-phase': phase, style: `${colour(phase)};flex-grow:${byPhase[phase] / whole}` })));
    this.words.replaceChildren(...phases.map((phase) => el('span', '', { 'data-phase': phase, style: colour(phase), text: `${phase} ${Math.round((100 * byPhase[phase]) / whole)} %` })));
  }
}
