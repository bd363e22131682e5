// The Export menu: files that the server makes of the run, and pictures of the map that are drawn here. A page
// without a server (an exported one) offers the pictures alone.

import { el, setText } from './dom.js';
import { icon } from './svg.js';

const SERVED = [
  { id: 'json', title: 'Trace', kind: 'JSON', hint: 'opens here again' },
  { id: 'html', title: 'Player', kind: 'HTML', hint: 'one page, plays offline' },
  { id: 'gif', title: 'Animation', kind: 'GIF' },
  { id: 'mp4', title: 'Film', kind: 'MP4' },
  { id: 'csv-steps', title: 'Steps', kind: 'CSV', group: true },
  { id: 'csv-tokens', title: 'Tokens', kind: 'CSV' },
  { id: 'csv-cycles', title: 'Draft cycles', kind: 'CSV', speculative: true },
  { id: 'csv-metrics', title: 'Figures', kind: 'CSV' },
];
const DRAWN = [
  { id: 'map-png', title: 'Map', kind: 'PNG', group: true },
  { id: 'map-svg', title: 'Map', kind: 'SVG' },
];
const ARROW = 'M7.2 2h1.6v6.2l2.3-2.3 1.1 1.1L8 11.2 3.8 7l1.1-1.1 2.3 2.3zM2.5 12.4h11V14h-11z';
const TRACES = '/nemodiff/traces/';
const KEPT_MS = 10_000; // a download may begin late

export class ExportMenu {
  /**
   * `base` is the path of the server, `served` whether there is one. `source()` gives {run, lane, lanes, root} as
   * they are now; `changed()` is called when `problem` may have changed.
   */
  constructor({ base = '', served = true, source, changed }) {
    Object.assign(this, { base, served, source, changed });
    this.trouble = null; // {run, text} of the last export that failed
    this.word = el('span', 'ndp-export-word', { text: 'Export' });
    this.button = el('button', 'ndp-export-open', { type: 'button', 'aria-haspopup': 'menu', 'aria-expanded': 'false', title: 'Save this run as a file', hidden: !served, onclick: () => this.toggle(), onkeydown: (event) => this.buttonKey(event) }, icon(ARROW), this.word);
    this.items = new Map([...(served ? SERVED : []), ...DRAWN].map((item) => [item.id, { item, node: this.entry(item) }]));
    this.menu = el('div', 'ndp-export', { role: 'menu', 'aria-label': 'Export', hidden: true, tabindex: -1, onkeydown: (event) => this.key(event) }, ...[...this.items.values()].map(({ node }) => node));
    this.element = el('div', 'ndp-export-place', { onfocusout: (event) => this.left(event) }, this.button, this.menu);
    this.outside = (event) => this.element.contains(event.target) || this.close();
    for (const { item, node } of this.items.values()) if (DRAWN.includes(item)) node.hidden = true;
    if (!served) this.findMap(); // the button waits until there is something to offer
  }

  entry(item) {
    const hint = item.hint ? el('span', 'ndp-export-hint', { text: item.hint }) : '';
    return el('button', `ndp-export-item${item.group ? ' ndp-export-group' : ''}`, { type: 'button', role: 'menuitem', tabindex: -1, 'data-format': item.id, onclick: () => this.save(item.id) }, el('span', '', { text: item.title }), hint, el('span', 'ndp-export-kind', { text: item.kind }));
  }

  /** What went wrong with the run in view, or nothing. */
  get problem() {
    return this.trouble && this.trouble.run === this.source().run ? this.trouble.text : null;
  }

  // -- open and closed ----------------------------------------------------------------------------

  get shown() {
    return [...this.items.values()].map(({ node }) => node).filter((node) => !node.hidden);
  }

  toggle() {
    if (this.menu.hidden) this.open();
    else this.close();
  }

  open(last = false) {
    if (this.busy) return;
    this.findMap();
    const { lanes } = this.source();
    const speculative = lanes.some((lane) => /_spec$/.test(lane?.mode));
    for (const { item, node } of this.items.values()) if (item.speculative) node.hidden = !speculative;
    this.menu.hidden = false;
    this.button.setAttribute('aria-expanded', 'true');
    document.addEventListener('pointerdown', this.outside);
    this.shown.at(last ? -1 : 0)?.focus();
  }

  close({ focus = false } = {}) {
    this.menu.hidden = true;
    this.button.setAttribute('aria-expanded', 'false');
    document.removeEventListener('pointerdown', this.outside);
    if (focus) this.button.focus();
  }

  left(event) {
    if (!this.menu.hidden && event.relatedTarget && !this.element.contains(event.relatedTarget)) this.close();
  }

  buttonKey(event) {
    if (event.key !== 'ArrowDown' && event.key !== 'ArrowUp') return;
    event.preventDefault();
    event.stopPropagation();
    this.open(event.key === 'ArrowUp');
  }

  key(event) {
    const { shown } = this;
    const at = shown.indexOf(document.activeElement);
    const moves = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: shown.length - 1 };
    event.stopPropagation(); // the player's keys rest while the menu is open
    if (event.key in moves) shown[(moves[event.key] + shown.length) % shown.length].focus();
    else if (event.key === 'Escape') this.close({ focus: true });
    else if (event.key === 'Tab') {
      this.close({ focus: true }); // from where Tab then goes on
      return;
    } else if (event.key === 'Enter' || event.key === ' ') document.activeElement.click();
    else if (/^[a-z]$/i.test(event.key) && !event.ctrlKey && !event.metaKey) this.seek(event.key, at);
    else return;
    event.preventDefault();
  }

  /** The next entry that begins with a letter, by its name or by its kind. */
  seek(letter, at) {
    const { shown } = this;
    const begins = (node) => [...node.children].some((part) => !part.matches('.ndp-export-hint') && part.textContent.toLowerCase().startsWith(letter.toLowerCase()));
    const next = [...shown.slice(at + 1), ...shown.slice(0, at + 1)].find(begins);
    next?.focus();
  }

  // -- saving -------------------------------------------------------------------------------------

  /** The map's own module may be missing; then its pictures are not offered. */
  findMap() {
    this.map ??= import('./map.js').then((module) => {
      const there = Boolean(module.mapPng && module.mapSvg);
      for (const { id } of DRAWN) this.items.get(id).node.hidden = !there;
      if (there) this.button.hidden = false;
      return module;
    }, () => null);
    return this.map;
  }

  async save(id) {
    this.close({ focus: true });
    const from = this.source();
    this.mark(true);
    this.trouble = null;
    const text = await this.deliver(id, from);
    if (text) this.trouble = { run: from.run, text };
    this.mark(false);
    this.changed();
  }

  /** Make one file and hand it over. Answers with what went wrong, or ''. */
  async deliver(id, from = this.source()) {
    try {
      const { blob, name } = id.startsWith('map-') ? await this.draw(id, from) : await this.fetch(id, from);
      download(blob, name);
      return '';
    } catch (error) {
      return error instanceof Refusal ? error.message : `The export failed (${error.message}); try again, or another format.`;
    }
  }

  mark(busy) {
    this.busy = busy;
    setText(this.word, busy ? 'Exporting…' : 'Export');
    this.button.setAttribute('aria-busy', String(busy));
    this.changed();
  }

  async fetch(id, { run, root }) {
    if (!run) throw new Refusal('There is nothing to save yet: run a prompt first.');
    const query = new URLSearchParams({ format: id, theme: isDark(root) ? 'dark' : 'light' });
    let answer;
    try {
      answer = await fetch(`${this.base}${TRACES}${encodeURIComponent(run)}?${query}`);
    } catch {
      throw new Refusal('The server does not answer; check the connection and export again.');
    }
    if (!answer.ok) {
      const said = /^text\/plain/.test(answer.headers.get('content-type') ?? '') ? (await answer.text()).slice(0, 400) : '';
      throw new Refusal(said || `The server could not export the run (${answer.status}); try another format.`);
    }
    const name = /filename="([^"]+)"/.exec(answer.headers.get('content-disposition') ?? '');
    return { blob: await answer.blob(), name: name ? name[1] : `nemodiff-run.${id}` };
  }

  async draw(id, { lane, root }) {
    const module = await this.findMap();
    if (!module || !lane) throw new Refusal('There is no map to export yet: run a prompt first.');
    if (id === 'map-png') return { blob: await module.mapPng(lane, { host: root }), name: 'nemodiff-map.png' };
    return { blob: new Blob([module.mapSvg(lane, { host: root })], { type: 'image/svg+xml' }), name: 'nemodiff-map.svg' };
  }

  stop() {
    this.close();
  }
}

/** Something that has been said well already. */
class Refusal extends Error {}

function isDark(root) {
  const scheme = getComputedStyle(root).colorScheme;
  return scheme.includes('dark') && (!scheme.includes('light') || window.matchMedia('(prefers-color-scheme: dark)').matches);
}

function download(blob, name) {
  const link = el('a', '', { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), KEPT_MS);
}
