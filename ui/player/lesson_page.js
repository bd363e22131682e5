// One lesson: a part at a time, its text, its question, and the moment of the recorded run that it is about.

import { el } from './dom.js';
import { Question } from './lesson_question.js';
import { nodes } from './lesson_text.js';

export class LessonPage {
  /** `act`: {list(), present(), turned(part), finished()}. */
  constructor(lesson, { words, stage, act }) {
    this.lesson = lesson;
    this.words = words;
    this.stage = stage;
    this.act = act;
    this.part = 0;
    this.answers = new Map(); // part -> {right}
    const button = (name, text, onclick, more = {}) => el('button', `ndl-button ${name}`, { type: 'button', text, onclick, ...more });
    this.present = button('ndl-present', words.present, () => act.present(), { 'aria-pressed': 'false', title: words.present_about });
    this.top = el('div', 'ndl-top', {}, el('button', 'ndl-link', { type: 'button', text: `‹ ${words.all_lessons}`, onclick: () => act.list() }), this.present);
    this.marks = el('ol', 'ndl-marks', { 'aria-hidden': 'true' }, ...lesson.parts.map(() => el('li')));
    this.where = el('p', 'ndl-where');
    this.heading = el('h3', 'ndl-heading', { tabindex: -1 });
    this.body = el('div', 'ndl-body');
    this.back = button('ndl-back', words.back, () => this.turn(-1));
    this.next = button('ndl-next', words.next, () => this.turn(1));
    this.again = el('button', 'ndl-link', { type: 'button', text: words.again, onclick: () => this.show() });
    this.attempt = el('a', 'ndl-link ndl-try', { text: words.try });
    this.notes = el('details', 'ndl-notes', {}, el('summary', '', { text: words.notes }), el('div', 'ndl-body', {}, ...nodes(lesson.notes)));
    this.notes.hidden = lesson.notes.length === 0;
    this.element = el(
      'article', 'ndl-lesson', { lang: lesson.language, 'aria-label': lesson.title },
      this.top,
      el('h2', 'ndl-title', { text: lesson.title }),
      this.marks, this.where, this.heading, this.body,
      el('div', 'ndl-turn', {}, this.back, this.next),
      el('div', 'ndl-more', {}, this.again, this.attempt),
      this.notes,
      el('p', 'ndl-keys', { text: words.keys }),
    );
  }

  /** Open a part; `show` false leaves the player alone. */
  open(part, { show = true, focus = false } = {}) {
    const { parts } = this.lesson;
    this.part = Math.max(0, Math.min(part, parts.length - 1));
    const now = parts[this.part];
    this.question?.closed();
    this.question = null;
    if (show) this.show();
    this.heading.textContent = now.heading || this.lesson.title;
    this.where.textContent = this.words.at_part.replace('{n}', this.part + 1).replace('{of}', parts.length);
    this.body.replaceChildren(...nodes(now.body));
    if (now.question) {
      this.question = new Question(now.question, {
        words: this.words,
        stage: this.stage,
        given: this.answers.get(this.part) ?? null,
        answered: (state) => this.answers.set(this.part, state),
      });
      this.body.append(this.question.element);
    }
    [...this.marks.children].forEach((mark, i) => {
      mark.dataset.state = i === this.part ? 'here' : i < this.part ? 'past' : 'ahead';
    });
    this.back.disabled = this.part === 0;
    const last = this.part === parts.length - 1;
    this.next.textContent = last ? this.words.finish : this.words.next;
    this.again.hidden = this.spot === null;
    this.attempt.hidden = !now.try;
    if (now.try) this.attempt.href = liveLink(now.try);
    this.act.turned(this.part);
    if (focus) {
      this.heading.focus({ preventScroll: true });
      this.element.scrollIntoView({ block: 'nearest' });
    }
  }

  /** The moment this part is about: its own, or that of the nearest part before it. */
  get spot() {
    for (let part = this.part; part >= 0; part -= 1) if (this.lesson.parts[part].show) return this.lesson.parts[part].show;
    return null;
  }

  show() {
    if (this.spot) this.stage.show(this.spot);
  }

  turn(by) {
    if (this.part + by >= this.lesson.parts.length) this.act.finished();
    else if (this.part + by >= 0) this.open(this.part + by, { focus: true });
  }

  closed() {
    this.question?.closed();
  }
}

/** The page's own address with the settings of a recorded run; theme and language stay. */
function liveLink(query) {
  const asked = new URLSearchParams(query);
  for (const [name, value] of new URLSearchParams(window.location.search)) if (name === 'lang' || name.startsWith('__')) asked.set(name, value);
  return `${window.location.pathname}?${asked}`;
}
