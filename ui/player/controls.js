// Transport: buttons, scrubber, speed, timeline and the sentence about the step shown.

import { el, setAttr, setText } from './dom.js';
import { icon } from './svg.js';
import { Timeline } from './timeline.js';

const ICONS = {
  start: 'M3 3h1.6v10H3zM13 3v10L5.6 8z',
  back: 'M10.5 3v10L4.5 8zM11 3h1.6v10H11z',
  play: 'M4.5 2.6v10.8L13 8z',
  pause: 'M4 3h3v10H4zM9 3h3v10H9z',
  forward: 'M5.5 3v10l6-5zM3.4 3H5v10H3.4z',
  end: 'M11.4 3H13v10h-1.6zM3 3v10l7.400-5z',
};

export class Controls {
  /** `act` holds the actions: toggle, step(±1), first, last, seek(value), follow, speed(id), help; and `menu`, an element. */
  constructor(act) {
    const button = (name, label, run) => el('button', 'ndp-button', { type: 'button', title: label, 'aria-label': label, onclick: run }, icon(ICONS[name]));
    this.playIcon = icon(ICONS.play);
    this.play = el('button', 'ndp-button ndp-play', { type: 'button', 'aria-label': 'Play', title: 'Play (space)', onclick: act.toggle }, this.playIcon);
    this.live = el('button', 'ndp-live', { type: 'button', text: 'Live', title: 'Follow the newest step', onclick: act.follow, hidden: true });
    this.speed = el('select', 'ndp-speed', { 'aria-label': 'Playback speed', onchange: () => act.speed(this.speed.value) });
    this.help = el('button', 'ndp-button ndp-help-open', { type: 'button', text: '?', title: 'Keyboard (?)', 'aria-label': 'Keyboard shortcuts', 'aria-expanded': 'false', onclick: act.help });
    this.range = el('input', 'ndp-range', { type: 'range', min: 0, max: 0, step: 1, value: 0, 'aria-label': 'Step', oninput: () => act.seek(Number(this.range.value)) });
    this.timeline = new Timeline((fraction) => act.seek(fraction * Number(this.range.max)));
    this.label = el('p', 'ndp-step');
    const buttons = el(
      'div', 'ndp-buttons', { role: 'group', 'aria-label': 'Playback' },
      button('start', 'To the start (Home)', act.first),
      button('back', 'One step back (←)', () => act.step(-1)),
      this.play,
      button('forward', 'One step forward (→)', () => act.step(1)),
      button('end', 'To the end (End)', act.last),
    );
    this.element = el(
      'div', 'ndp-transport', {},
      el('div', 'ndp-bar', {}, buttons, this.label, this.live, this.speed, act.menu ?? '', this.help),
      el('div', 'ndp-scrub', {}, this.range, this.timeline.element),
    );
  }

  speeds(list, chosen) {
    this.speed.replaceChildren(...list.map((speed) => el('option', '', { value: speed.id, text: speed.label })));
    this.speed.value = chosen;
  }

  update({ value, max, playing, sentence, canFollow, disabled }) {
    if (Number(this.range.max) !== max) this.range.max = String(max);
    if (Number(this.range.value) !== value) this.range.value = String(value);
    const fraction = max ? value / max : 0;
    this.range.style.setProperty('--nd-done', `${fraction * 100}%`);
    setAttr(this.range, 'aria-valuetext', sentence);
    this.range.disabled = disabled;
    this.play.disabled = disabled;
    this.timeline.moveHead(fraction);
    const label = playing ? 'Pause' : 'Play';
    if (this.play.getAttribute('aria-label') !== label) {
      setAttr(this.play, 'aria-label', label);
      setAttr(this.play, 'title', `${label} (space)`);
      this.playIcon.firstChild.setAttribute('d', ICONS[playing ? 'pause' : 'play']);
    }
    this.live.hidden = !canFollow;
    setText(this.label, sentence);
  }
}
