// Proposed changes: each can be taken or refused, and the text that results is shown.

import { el, setText } from './dom.js';
import { merged } from './editor_text.js';

export class Diff {
  /** `take(doc)`: the merged text becomes the draft; `again(doc)`: and is revised once more. */
  constructor({ take, again, say }) {
    this.on = { take, again, say };
    this.head = el('h2', 'nde-heading', { tabindex: -1 });
    this.list = el('ol', 'nde-hunks', { 'aria-label': 'Proposed changes' });
    this.list.addEventListener('keydown', (event) => this.key(event));
    this.text = el('p', 'nde-merged', { 'aria-label': 'Merged text' });
    const button = (text, onclick, className = 'nde-button') => el('button', className, { type: 'button', text, onclick });
    this.all = el('div', 'nde-row', {}, button('Accept all', () => this.decideAll(true)), button('Reject all', () => this.decideAll(false)));
    this.onward = el('div', 'nde-row', {}, button('Use merged text', () => take(this.doc)), button('Revise again', () => again(this.doc)));
    this.mergedBox = el('div', '', {}, el('h2', 'nde-heading', { text: 'Merged text' }), this.text, this.onward);
    this.element = el('section', 'nde-result', { 'aria-label': 'Changes', hidden: true }, this.head, this.all, this.list, this.mergedBox);
  }

  /** `pins`: those of the draft, as it was sent. */
  show({ parts, whole }, pins) {
    this.parts = parts;
    this.pins = pins;
    this.hunks = parts.filter((part) => part.text === undefined);
    this.decisions = this.hunks.map(() => null);
    const count = this.hunks.length;
    const changes = count === 1 ? '1 proposed change' : `${count} proposed changes`;
    setText(this.head, count ? changes + (whole ? '' : ' before the run was stopped') : whole ? 'Nothing to change: the causal pass believes the draft.' : 'Stopped before anything was changed.');
    this.all.hidden = count < 2;
    this.mergedBox.hidden = count === 0;
    this.list.replaceChildren(...this.hunks.map((hunk, index) => this.row(hunk, index)));
    this.element.hidden = false;
    this.draw();
  }

  hide() {
    this.element.hidden = true;
  }

  get doc() {
    return merged(this.parts, this.decisions, this.pins);
  }

  row(hunk, index) {
    const button = (text, decision) =>
      el('button', 'nde-small', { type: 'button', text, 'data-decision': String(decision), 'aria-label': `${text} change ${index + 1}`, onclick: () => this.decide(index, decision) });
    return el(
      'li', 'nde-hunk', { tabindex: 0, 'data-hunk': index, 'aria-label': `Change ${index + 1}: ${shown(hunk.before)} becomes ${shown(hunk.after)}` },
      el('p', 'nde-change', {}, el('del', '', { text: shown(hunk.before) }), ' ', el('span', 'nde-arrow', { text: '→', 'aria-hidden': 'true' }), ' ', el('ins', '', { text: shown(hunk.after) })),
      el('p', 'nde-cause', { text: reason(hunk.cause) }),
      el('div', 'nde-decide', {}, button('Accept', true), button('Reject', false)),
    );
  }

  /** A second press takes the decision back. */
  decide(index, decision) {
    this.decisions[index] = this.decisions[index] === decision ? null : decision;
    this.draw();
    const left = this.decisions.filter((d) => d === null).length;
    this.on.say(`Change ${index + 1} ${{ true: 'accepted', false: 'rejected', null: 'open again' }[this.decisions[index]]}; ${left} undecided.`);
  }

  decideAll(decision) {
    this.decisions.fill(decision);
    this.draw();
    this.on.say(decision ? 'All changes accepted.' : 'All changes rejected.');
  }

  key(event) {
    const row = event.target.closest('.nde-hunk');
    if (!row || event.ctrlKey || event.altKey || event.metaKey) return;
    const index = Number(row.dataset.hunk);
    const key = event.key.toLowerCase();
    if (key === 'a' || key === 'r') this.decide(index, key === 'a');
    else if (key === 'arrowdown' || key === 'j') this.list.children[Math.min(index + 1, this.hunks.length - 1)].focus();
    else if (key === 'arrowup' || key === 'k') this.list.children[Math.max(index - 1, 0)].focus();
    else return;
    event.preventDefault();
  }

  draw() {
    for (const [index, row] of [...this.list.children].entries()) {
      const decision = this.decisions[index];
      row.dataset.state = { true: 'accepted', false: 'rejected', null: 'open' }[decision];
      for (const button of row.querySelectorAll('button')) button.setAttribute('aria-pressed', String(button.dataset.decision === String(decision)));
    }
    let hunk = 0;
    this.text.replaceChildren(
      ...this.parts.flatMap((part) => {
        if (part.text !== undefined) return [part.text];
        const decision = this.decisions[hunk++];
        if (decision === true) return [el('ins', '', { text: part.after })];
        if (decision === false) return [el('b', 'nde-pinned', { text: part.before })];
        return [el('mark', 'nde-open', { text: part.before })];
      }),
    );
  }
}

/** A piece of text that may be nothing, or nothing but white space. */
function shown(text) {
  if (text === '') return '(nothing)';
  return text.trim() || (text.includes('\n') ? '(line break)' : '(space)');
}

/** Why a stretch was written again, from the scores that the trace recorded. */
export function reason(cause) {
  if (!cause) return 'No causal probability was recorded here.';
  const { token, probability, rank, step, doubted } = cause;
  const choice = rank === 0 ? 'its own first choice' : `its choice no. ${rank + 1}`;
  const said = `The causal pass gave “${token.trim() || token}” ${percent(probability)}, ${choice} (step ${step + 1})`;
  return doubted ? `${said}, and doubted it.` : `${said}; it was reopened with a doubted cell before it.`;
}

function percent(p) {
  if (p < 0.0005) return 'less than 0.1 %';
  return `${(100 * p).toFixed(1)} %`;
}
