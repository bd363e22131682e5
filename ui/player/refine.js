// The Refine view: the block at work, the text it adds to, and the inspector.

import { BlockRow } from './cells.js';
import { el, setText } from './dom.js';
import { Heard } from './heard.js';
import { Inspector } from './inspector.js';
import { Legend } from './legend.js';
import { Prose } from './prose.js';

export class RefineView {
  constructor(focus) {
    this.focus = focus;
    this.title = el('h3', 'ndp-title');
    this.place = el('span', 'ndp-place');
    this.legend = new Legend();
    this.row = new BlockRow(focus);
    this.prose = new Prose(focus);
    this.heard = new Heard();
    this.inspector = new Inspector(focus);
    const text = el('section', 'ndp-text', { 'aria-label': 'Text' }, el('h3', 'ndp-title', { text: 'Text' }), this.prose.element, this.heard.element);
    this.element = el(
      'div', 'ndp-refine', {},
      el('section', 'ndp-work', { 'aria-label': 'Block' }, el('div', 'ndp-work-head', {}, this.title, this.place, this.legend.element), this.row.element),
      el('div', 'ndp-columns', {}, text, this.inspector.element),
    );
  }

  /** Show lane and step; `still` says that the picture will stay, so that it may be read out. */
  update({ lanes, steps, selected, still }) {
    const lane = lanes[selected];
    this.element.hidden = !lane;
    if (!lane) return;
    const step = steps[selected];
    const cells = lane.fold.at(step);
    const span = lane.spanAt(step);
    const frame = { lane, cells, step, span };
    const from = span.start - lane.start + 1;
    setText(this.title, lane.remote ? 'As it came' : lane.mode === 'ar' ? 'Tokens' : `Block ${span.number + 1}`);
    const to = from + span.end - span.start - 1;
    setText(this.place, to > from ? `answer ${from}–${to}` : `answer ${from}`);
    this.legend.update(lane.mode, lane.revisions.made.size > 0);
    this.width ??= this.row.element.clientWidth;
    this.row.update(frame, this.width);
    this.prose.update(frame, this.focus.pinned, still);
    this.inspector.update(frame);
    if (still) this.heard.update({ lane, cells: lane.fold.at(step), length: lane.length(step) });
  }

  resized() {
    this.width = undefined;
  }

  key(event) {
    return this.row.key(event);
  }
}
