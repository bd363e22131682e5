// A blind race before the vote: the answers and nothing else. No names, figures, times or colours: whatever a
// lane does on its way to its answer would say which lane it is.

import { el, setAttr, setText } from './dom.js';
import { proseText } from './pieces.js';
import { LETTERS } from './race.js';

class Answer {
  constructor(index, chosen) {
    this.text = el('div', 'ndp-answer', { dir: 'auto' });
    this.best = el('button', 'ndp-vote', { type: 'button', text: 'Best', 'aria-pressed': 'false', 'aria-label': `${LETTERS[index]} is best`, onclick: () => chosen(index) });
    this.element = el('section', 'ndp-lane ndp-blind-lane', { 'aria-label': `Answer ${LETTERS[index]}` }, el('h3', 'ndp-lane-mode', { text: LETTERS[index] }), this.text, this.best);
  }
}

export class BlindView {
  /** `vote(best)` takes the numbers of the lanes called best, none where all are bad; resolves to a sentence if it fails. */
  constructor(vote) {
    this.vote = vote;
    this.best = new Set();
    this.bad = false;
    this.answers = [];
    this.note = el('p', 'ndp-clock-note', { role: 'status' });
    this.grid = el('div', 'ndp-lanes');
    this.allBad = el('button', 'ndp-vote', { type: 'button', text: 'All bad', 'aria-pressed': 'false', onclick: () => this.reject() });
    this.cast = el('button', 'ndp-vote ndp-cast', { type: 'button', text: 'Vote', onclick: () => this.send() });
    this.problem = el('p', 'ndp-fault', { role: 'alert', hidden: true });
    this.ballot = el('div', 'ndp-ballot', {}, this.allBad, this.cast);
    this.element = el('div', 'ndp-blind', {}, this.note, this.grid, this.ballot, this.problem);
  }

  choose(index) {
    this.bad = false;
    if (!this.best.delete(index)) this.best.add(index);
    this.mark();
  }

  reject() {
    this.bad = !this.bad;
    this.best.clear();
    this.mark();
  }

  async send() {
    this.sending = true;
    this.mark();
    const problem = await this.vote([...this.best].sort());
    this.sending = false;
    setText(this.problem, problem ?? '');
    this.problem.hidden = !problem;
    this.mark();
  }

  mark() {
    for (const [index, answer] of this.answers.entries()) {
      setAttr(answer.best, 'aria-pressed', String(this.best.has(index)));
      answer.best.disabled = !this.open;
    }
    setAttr(this.allBad, 'aria-pressed', String(this.bad));
    this.allBad.disabled = !this.open;
    this.cast.disabled = !this.open || this.sending || !(this.bad || this.best.size);
    setText(this.cast, this.best.size > 1 ? 'Vote: a tie' : 'Vote');
  }

  update({ lanes, total, complete, blind }) {
    while (this.answers.length < total) {
      const answer = new Answer(this.answers.length, (index) => this.choose(index));
      this.answers.push(answer);
      this.grid.append(answer.element);
    }
    setAttr(this.grid, 'data-lanes', total);
    const whole = lanes.filter((lane) => lane?.tail && lane.tail.stop_reason !== 'cancelled' && lane.tail.stop_reason !== 'error').length === total;
    this.open = complete && whole;
    // All at once: an answer that comes early would tell that its lane is fast.
    this.answers.forEach((answer, index) => setText(answer.text, this.open ? proseText(lanes[index].text(lanes[index].output(lanes[index].last))) : '…'));
    const which = blind.of > 1 ? `Prompt ${blind.number + 1} of ${blind.of}. ` : '';
    const how = this.open
      ? 'Which answer is best? Choose several for a tie. Names and figures come with the vote.'
      : complete ? 'Not every lane has written its answer, so there is nothing to vote on; run the comparison again.' : 'The lanes write, in an order that is not shown. Their answers appear together.';
    setText(this.note, which + how);
    this.mark();
  }

  resized() {}

  key() {
    return false;
  }
}
