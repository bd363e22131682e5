// The Learn view: contents, one lesson, and presenter mode. `mount` is its whole interface.
//
// In presenter mode the page holds nothing but the lesson and the player (ui/theme.py hides the rest while
// `data-nd-present` stands on the page), and the lesson's keys act wherever the focus is.

import { el } from './dom.js';
import { LessonList } from './lesson_list.js';
import { LessonPage } from './lesson_page.js';
import { Progress } from './lesson_progress.js';
import { Stage } from './lesson_stage.js';
import { ensureStyles } from './style.js';

const PLAYER_KEYS = new Set(['ArrowLeft', 'ArrowRight', 'Home', 'End', ' ', '[', ']']);

class Lessons {
  constructor(root, { player, course }) {
    this.ask = course;
    this.stage = new Stage(player);
    this.progress = new Progress();
    this.page = null;
    this.element = el('div', 'ndp ndl', { 'data-place': 'loading' });
    root.replaceChildren(this.element);
    ensureStyles(this.element, () => {});
    new MutationObserver(() => this.viewed()).observe(document.documentElement, { attributes: true, attributeFilter: ['data-nd-view'] });
    document.addEventListener('keydown', (event) => this.key(event), true);
    this.viewed();
  }

  get looking() {
    return document.documentElement.dataset.ndView === 'learn';
  }

  get presenting() {
    return document.documentElement.hasAttribute('data-nd-present');
  }

  /** The view was entered or left. */
  viewed() {
    if (!this.looking) {
      this.present(false);
      return;
    }
    if (!this.course) this.fetch();
    else this.page?.show();
  }

  async fetch() {
    if (this.fetching) return;
    this.fetching = true;
    this.element.replaceChildren(el('p', 'ndl-about', { text: 'Fetching the lessons…' }));
    let course = null;
    try {
      course = await this.ask({ lang: new URLSearchParams(window.location.search).get('lang') ?? 'en' });
    } catch {
      course = null;
    }
    this.fetching = false;
    if (!Array.isArray(course?.lessons)) {
      this.element.replaceChildren(el('p', 'ndl-about', { text: String(course?.error ?? 'The lessons could not be fetched; reload the page.') }));
      return;
    }
    this.course = course;
    this.element.lang = course.language;
    this.list = new LessonList(course, this.progress, { lesson: (id) => this.open(id), card: (card) => this.card(card) });
    this.arrive(new URLSearchParams(window.location.search));
  }

  /** Go where the link says: `lesson` and `part`, from 1; a `trace` of its own is the player's affair. */
  arrive(query) {
    const part = Number.parseInt(query.get('part') ?? '', 10);
    if (this.lesson(query.get('lesson'))) this.open(query.get('lesson'), { part: part ? part - 1 : 0, show: !query.has('trace'), focus: false });
    else this.contents({ focus: false });
    const card = this.course.gallery.find((c) => c.trace === query.get('trace') && String(c.step) === query.get('step'));
    if (card && !this.page) this.list.mark(card);
    if (query.has('present') && this.page) this.present(true);
  }

  lesson(id) {
    return this.course.lessons.find((lesson) => lesson.id === id);
  }

  contents({ focus = true } = {}) {
    const from = this.page?.lesson.id;
    this.present(false);
    this.page?.closed();
    this.page = null;
    this.list.refresh();
    this.element.dataset.place = 'contents';
    this.element.replaceChildren(this.list.element);
    if (focus) (this.element.querySelector(`[data-lesson="${CSS.escape(from ?? '')}"]`) ?? this.element.querySelector('.ndl-entry'))?.focus();
  }

  open(id, { part = null, show = true, focus = true } = {}) {
    const lesson = this.lesson(id);
    const { part: reached, done } = this.progress.of(id);
    this.page?.closed();
    this.list.mark(null);
    this.page = new LessonPage(lesson, {
      words: this.course.words,
      stage: this.stage,
      act: {
        list: () => {
          this.contents();
          this.address({});
        },
        present: () => this.present(!this.presenting),
        turned: (at) => {
          this.progress.reach(id, at);
          this.address({ lesson: id, part: at + 1 });
        },
        finished: () => this.finish(),
      },
    });
    this.element.dataset.place = 'lesson';
    this.element.replaceChildren(this.page.element);
    this.page.present.setAttribute('aria-pressed', String(this.presenting));
    this.page.open(part ?? (done ? 0 : reached), { show, focus });
  }

  /** The last part is behind us: go on to the next lesson while presenting, else back to the contents. */
  finish() {
    const { lesson, part } = this.page;
    this.progress.reach(lesson.id, part, true);
    const next = this.course.lessons[this.course.lessons.indexOf(lesson) + 1];
    if (this.presenting && next) {
      this.open(next.id, { part: 0 });
      return;
    }
    this.contents({ focus: false });
    (this.element.querySelector(`[data-lesson="${CSS.escape((next ?? lesson).id)}"]`) ?? this.element).focus();
    this.address({});
  }

  card(card) {
    this.list.mark(card);
    this.stage.show({ run: `recorded-${card.trace}`, lane: card.lane - 1, step: card.step - 1, cell: card.cell === null ? null : card.cell - 1, panel: card.panel });
    const place = { trace: card.trace, step: card.step };
    if (card.lane > 1) place.lane = card.lane;
    if (card.cell !== null) place.cell = card.cell;
    if (card.panel) place.panel = card.panel;
    this.address(place);
    if (window.matchMedia('(max-width: 900px)').matches) this.stage.element?.scrollIntoView({ block: 'start' });
  }

  /** Let the page's address name what is looked at, so that it can be sent to somebody. */
  address(place) {
    const now = new URL(window.location.href);
    const kept = [...now.searchParams].filter(([name]) => name === 'lang' || name.startsWith('__'));
    now.search = new URLSearchParams([['view', 'learn'], ...Object.entries(place).map(([k, v]) => [k, String(v)]), ...kept]).toString();
    window.history.replaceState(window.history.state, '', now);
  }

  // -- presenter mode -------------------------------------------------------------------------------

  present(on) {
    if (on === this.presenting || (on && !this.page)) return;
    document.documentElement.toggleAttribute('data-nd-present', on);
    this.element.dataset.presenting = String(on);
    if (!this.page) return;
    this.page.present.setAttribute('aria-pressed', String(on));
    this.page.present.textContent = on ? this.course.words.leave : this.course.words.present;
    this.page.notes.open = false;
    if (on) this.stage.element?.focus({ preventScroll: true });
    window.scrollTo(0, 0);
  }

  key(event) {
    if (!this.looking || !this.page || event.altKey || event.ctrlKey || event.metaKey) return;
    const { target } = event;
    const typing = target.matches?.('input:not([type=radio]):not([type=checkbox]), textarea, select, [contenteditable]');
    const inside = this.element.contains(target);
    const near = inside || this.stage.element?.contains(target);
    if (typing && event.key !== 'Escape') return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const actions = { n: () => this.page.turn(1), p: () => this.page.turn(-1), f: () => this.present(!this.presenting) };
    if (inside || this.presenting) Object.assign(actions, { PageDown: actions.n, PageUp: actions.p });
    if (this.presenting) Object.assign(actions, { t: () => this.page.notes.toggleAttribute('open'), Escape: () => this.present(false) });
    if (Object.hasOwn(actions, key) && (near || this.presenting)) {
      event.preventDefault();
      event.stopPropagation();
      actions[key]();
      return;
    }
    // Space and Enter belong to a button that has the focus; all else is for the player.
    const pressing = target.matches?.('button, summary, a') && key === ' ';
    if (this.presenting && PLAYER_KEYS.has(key) && !pressing && !near) this.stage.key(event);
    else if (this.presenting && inside && key.startsWith('Arrow')) this.stage.key(event);
  }
}

/** Put the lessons into `root`. `player` is the player's id; `course({lang})` fetches what there is to learn. */
export function mount(root, options) {
  const lessons = new Lessons(root, options);
  window.__nemodiff ??= { players: {} };
  window.__nemodiff.lessons = {
    get place() {
      return { lesson: lessons.page?.lesson.id ?? null, part: lessons.page?.part ?? null, presenting: lessons.presenting };
    },
  };
}
