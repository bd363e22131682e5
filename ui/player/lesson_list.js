// The table of contents: lessons with how far one has come, and the gallery of moments.

import { el } from './dom.js';

export class LessonList {
  /** `act`: {lesson(id), card(card)}. */
  constructor(course, progress, act) {
    this.progress = progress;
    const { words, lessons, gallery } = course;
    this.words = words;
    this.entries = lessons.map((lesson, i) => {
      const state = el('span', 'ndl-entry-state');
      const button = el(
        'button', 'ndl-entry', { type: 'button', 'data-lesson': lesson.id, onclick: () => act.lesson(lesson.id) },
        el('span', 'ndl-entry-number', { text: String(i + 1), 'aria-hidden': 'true' }),
        el('span', 'ndl-entry-words', {}, el('span', 'ndl-entry-title', { text: lesson.title }), el('span', 'ndl-entry-about', { text: lesson.summary })),
        state,
      );
      return { lesson, state, button };
    });
    this.cards = gallery.map((card) => {
      const button = el(
        'button', 'ndl-card', { type: 'button', 'data-card': card.name, 'aria-pressed': 'false', onclick: () => act.card(card) },
        el('span', 'ndl-card-title', { text: card.title }), el('span', 'ndl-card-about', { text: card.sentence }),
      );
      return { card, button };
    });
    this.element = el(
      'div', 'ndl-list', {},
      el('h2', 'ndl-title', { text: words.lessons }),
      el('p', 'ndl-about', { text: lessons.length ? words.about : words.none }),
      el('ol', 'ndl-entries', {}, ...this.entries.map(({ button }) => el('li', '', {}, button))),
      el('h2', 'ndl-title', { text: words.gallery, id: 'ndl-gallery' }),
      el('p', 'ndl-about', { text: words.gallery_about }),
      el('ul', 'ndl-cards', {}, ...this.cards.map(({ button }) => el('li', '', {}, button))),
    );
    this.refresh();
  }

  refresh() {
    for (const { lesson, state, button } of this.entries) {
      const { part, done, begun } = this.progress.of(lesson.id);
      button.dataset.state = done ? 'done' : begun ? 'begun' : 'new';
      const length = this.words.minutes.replace('{n}', lesson.minutes);
      state.textContent = done ? `✓ ${this.words.done}` : begun ? this.words.at_part.replace('{n}', part + 1).replace('{of}', lesson.parts.length) : length;
    }
  }

  /** Mark the card whose moment is open, or none. */
  mark(card) {
    for (const entry of this.cards) entry.button.setAttribute('aria-pressed', String(entry.card === card));
  }
}
