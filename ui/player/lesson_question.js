// A question of a lesson. Whatever the learner says is held against what was found in the trace, and the
// reason is given at once; a wrong answer gets a hint, and then the choice to be shown.

import { el } from './dom.js';
import { nodes } from './lesson_text.js';

export class Question {
  /** `answered()` is called once the answer is there; `given` is the state that `state` returned before. */
  constructor(asked, { words, stage, answered, given = null }) {
    this.asked = asked;
    this.words = words;
    this.stage = stage;
    this.answered = answered;
    this.tries = 0;
    this.solved = false;
    this.said = el('div', 'ndl-said', { role: 'status' });
    this.way = el('div', 'ndl-way');
    this.element = el('section', 'ndl-question', { 'data-kind': asked.kind }, el('p', 'ndl-ask', {}, ...nodes(asked.question)), this.way, this.said);
    this[asked.kind]();
    if (given) this.settle(given.right);
  }

  // -- the four ways to answer ----------------------------------------------------------------------

  choice() {
    this.buttons = this.asked.choices.map(({ text, right }) => {
      const button = el('button', 'ndl-choice', { type: 'button', onclick: () => this.chose(button, right) }, ...nodes(text));
      return button;
    });
    this.way.append(...this.buttons);
  }

  chose(button, right) {
    if (this.solved) return;
    button.dataset.said = right ? 'right' : 'wrong';
    if (right) this.settle(true);
    else {
      button.disabled = true;
      this.miss();
    }
  }

  number() {
    this.box = el('input', 'ndl-number', { type: 'text', inputmode: 'decimal', autocomplete: 'off', 'aria-label': this.words.number });
    const form = el('form', 'ndl-form', {
      onsubmit: (event) => {
        event.preventDefault();
        this.judgeNumber();
      },
    }, this.box, el('button', 'ndl-button', { type: 'submit', text: this.words.check }));
    this.way.append(form);
  }

  judgeNumber() {
    const said = Number.parseFloat(this.box.value.trim().replace(',', '.'));
    if (this.solved || !Number.isFinite(said)) {
      this.box.focus();
      return;
    }
    if (said >= this.asked.low && said <= this.asked.high) this.settle(true);
    else this.miss();
  }

  cell() {
    this.way.append(el('p', 'ndl-how', { text: this.words.pick_cell }));
    this.last = this.stage.handle?.selection.position ?? null;
    this.listener = ({ detail }) => {
      const { position } = detail;
      if (position === this.last) return;
      this.last = position;
      if (this.solved || position === null || !this.stage.shows(this.asked)) return;
      if (position === this.asked.position) this.settle(true);
      else this.miss();
    };
    document.addEventListener('nd-select', this.listener);
  }

  step() {
    this.way.append(
      el('p', 'ndl-how', { text: this.words.pick_step }),
      el('button', 'ndl-button', {
        type: 'button',
        text: this.words.check_step,
        onclick: () => {
          if (this.solved) return;
          if (!this.stage.shows(this.asked)) this.say('wrong', this.words.not_here);
          else if (this.stage.handle.selection.step === this.asked.step) this.settle(true);
          else this.miss();
        },
      }),
    );
  }

  // -- what is said ---------------------------------------------------------------------------------

  miss() {
    this.tries += 1;
    this.say('wrong', this.words.wrong, this.asked.hint);
    if (this.asked.kind === 'choice') return;
    this.said.append(el('button', 'ndl-link', { type: 'button', text: this.words.reveal, onclick: () => this.settle(false) }));
  }

  /** The answer is there: found, or shown. */
  settle(right) {
    this.solved = true;
    this.element.dataset.solved = right ? 'found' : 'shown';
    const { kind } = this.asked;
    const given = kind === 'number' ? this.words.the_answer.replace('{answer}', this.asked.answer) : '';
    this.say('right', right ? this.words.right : given, this.asked.because);
    if (kind === 'choice') {
      this.buttons.forEach((button, i) => {
        button.disabled = true;
        if (this.asked.choices[i].right) button.dataset.said = 'right';
      });
    } else if (kind === 'number') {
      this.box.disabled = true;
      this.box.value = this.asked.answer;
    } else if (this.stage.shows(this.asked)) {
      this.stage.handle.select({ step: this.asked.step, ...(kind === 'cell' ? { position: this.asked.position } : {}) });
    }
    this.answered({ right });
  }

  say(kind, lead, tree = []) {
    this.said.dataset.kind = kind;
    this.said.replaceChildren(el('p', '', {}, lead ? el('strong', '', { text: `${lead} ` }) : '', ...nodes(tree)));
  }

  closed() {
    if (this.listener) document.removeEventListener('nd-select', this.listener);
  }
}
