// The Edit view: text with gaps to fill, or a draft to revise. `mount` is its whole interface; `send` begins runs,
// `receive` takes their answers, and everything in between happens here.

import { el, setText } from './dom.js';
import { Diff } from './editor_diff.js';
import { GapList } from './editor_gaps.js';
import { Surface } from './editor_surface.js';
import { gapsIn, masked, pinned, plain, resized, trimmed, typed, unmasked } from './editor_text.js';
import { ensureStyles } from './style.js';

const PAUSE_MS = 700; // typing that pauses no longer is undone at once
const MOST_UNDO = 200;
const EMPTY = { text: '', marks: [] };
const TOOLS = { fill: 'Fill gaps', revise: 'Revise a draft' };
const MAC = /Mac|iPhone|iPad/.test(navigator.platform);
const KEY = MAC ? '⌃' : 'Alt+';

class Editor {
  constructor(root, { id, desk, send, player }) {
    this.desk = desk;
    this.send = send;
    this.player = player ?? (() => null);
    this.state = { tool: 'fill', prompt: '', fill: EMPTY, revise: EMPTY };
    this.past = [];
    this.future = [];
    this.busy = null; // the run that is on: infill or revise
    this.clicking = false; // words are pinned by a click
    this.build(root, id);
    this.show();
    this.fetchExamples();
  }

  build(root, id) {
    const button = (text, onclick, className = 'nde-button', more = {}) => el('button', className, { type: 'button', text, onclick, ...more });
    this.tabs = Object.entries(TOOLS).map(([tool, text]) => button(text, () => this.turn(tool), '', { 'data-tool': tool }));
    this.undoButton = button('Undo', () => this.undo(), 'nde-small');
    this.redoButton = button('Redo', () => this.redo(), 'nde-small');
    this.examples = el('select', 'nde-select', { 'aria-label': 'Start from an example', onchange: () => this.takeExample() });
    this.prompt = el('textarea', 'nde-prompt', { id: `${id}-prompt`, rows: 2, oninput: () => this.edit({ prompt: this.prompt.value }, true), onkeydown: (event) => this.undoKey(event) });
    this.promptNote = el('span', 'nde-faint');
    this.label = el('label', 'nde-label', { for: `${id}-text` });
    this.surface = new Surface({
      id: `${id}-text`,
      changed: (text) => this.edit({ [this.state.tool]: typed(this.doc, text) }, true),
      gap: (index) => this.putBack(index),
      word: (word) => this.pin(word.start, word.end),
      key: (event) => this.key(event),
    });
    this.gaps = new GapList({ resize: (index, low, high) => this.resize(index, low, high), back: (index) => this.putBack(index) });
    this.maskButton = button('Mask selection', () => this.mask(), 'nde-button', { title: `${KEY}M` });
    this.schemaButton = button('Paste JSON Schema', () => this.toggleSchema(), 'nde-button', { 'aria-expanded': 'false' });
    this.pinButton = button('Pin selection', () => this.pin(...this.surface.selection), 'nde-button', { title: `${KEY}P` });
    this.clickButton = button('Pin by click', () => this.setClicking(!this.clicking), 'nde-button', { 'aria-pressed': 'false' });
    this.runButton = button('Revise this run', () => this.takeRun());
    this.tools = el('div', 'nde-row', { role: 'toolbar', 'aria-label': 'Tools' }, this.maskButton, this.schemaButton, this.pinButton, this.clickButton, this.runButton);
    this.schema = el('textarea', 'nde-prompt nde-code', { rows: 6, 'aria-label': 'JSON Schema', spellcheck: 'false', placeholder: '{"type": "object", "properties": {"name": {"type": "string"}}}' });
    this.schemaBox = el('div', 'nde-schema', { hidden: true }, this.schema, el('div', 'nde-row', {}, button('Make a skeleton', () => this.makeSkeleton()), button('Close', () => this.toggleSchema())));
    this.hint = el('p', 'nde-faint nde-hint');
    this.go = button('', () => this.begin(), 'nde-go');
    this.stop = button('Stop', () => this.send('halt', {}), 'nde-button');
    this.said = el('p', 'nde-said', { role: 'status' });
    this.filledText = el('p', 'nde-merged');
    const onward = el('div', 'nde-row', {}, button('Use as text', () => this.useFilled('fill')), button('Revise it', () => this.useFilled('revise')));
    this.filledBox = el('section', 'nde-result', { 'aria-label': 'Filled text', hidden: true }, el('h2', 'nde-heading', { text: 'Filled text' }), this.filledText, onward);
    this.diff = new Diff({ take: (doc) => this.takeMerged(doc), again: (doc) => this.again(doc), say: (text) => this.say(text) });
    this.element = el(
      'section', 'nde', { 'aria-label': 'Editor' },
      el('div', 'nde-bar', {}, el('div', 'nde-tabs', { role: 'group', 'aria-label': 'What to do' }, ...this.tabs), el('div', 'nde-row', {}, this.undoButton, this.redoButton)),
      this.examples,
      el('div', '', {}, el('label', 'nde-label', { for: `${id}-prompt` }, 'Prompt ', this.promptNote), this.prompt),
      el('div', '', {}, this.label, this.surface.element, this.hint),
      this.tools, this.schemaBox, this.gaps.element,
      el('div', 'nde-row', {}, this.go, this.stop), this.said, this.filledBox, this.diff.element,
    );
    root.replaceChildren(this.element);
    ensureStyles(this.element, () => {});
  }

  get doc() {
    return this.state[this.state.tool];
  }

  get listed() {
    return gapsIn(this.doc.text, this.doc.marks);
  }

  // -- state and undo -------------------------------------------------------------------------------

  /** Change the state; `typing` joins what is written without a pause into one step of undo. */
  edit(change, typing = false) {
    const now = performance.now();
    if (!(typing && this.typing && now - this.typing < PAUSE_MS)) {
      this.past.push(this.state);
      if (this.past.length > MOST_UNDO) this.past.shift();
    }
    this.typing = typing ? now : null;
    this.future = [];
    this.state = { ...this.state, ...change };
    this.show();
  }

  undo() {
    this.move(this.past, this.future);
  }

  redo() {
    this.move(this.future, this.past);
  }

  move(from, to) {
    if (!from.length) return;
    to.push(this.state);
    this.state = from.pop();
    this.typing = null;
    this.show();
  }

  show() {
    const { tool, prompt } = this.state;
    const filling = tool === 'fill';
    this.element.dataset.tool = tool;
    for (const tab of this.tabs) tab.setAttribute('aria-pressed', String(tab.dataset.tool === tool));
    if (this.prompt.value !== prompt) this.prompt.value = prompt;
    setText(this.promptNote, filling ? '(may stay empty)' : '(what the draft answers)');
    setText(this.label, filling ? 'Text with gaps' : 'Draft');
    this.surface.area.placeholder = filling ? 'Write a text, select a part of it and press Mask.' : 'Write or paste a draft, or take the run that the player shows.';
    this.surface.show(this.doc, tool, this.clicking);
    this.gaps.show(filling ? this.listed : []);
    for (const part of [this.maskButton, this.schemaButton]) part.hidden = !filling;
    for (const part of [this.pinButton, this.clickButton, this.runButton]) part.hidden = filling;
    if (!filling) this.schemaBox.hidden = true;
    setText(this.hint, filling ? `Select text, then Mask (${KEY}M). Click a gap to put its text back.` : `Pinned words cannot change: select them, then Pin (${KEY}P), or pin by click.`);
    this.undoButton.disabled = !this.past.length;
    this.redoButton.disabled = !this.future.length;
    setText(this.go, filling ? 'Fill' : 'Propose changes');
    this.go.disabled = this.busy !== null;
    this.stop.disabled = this.busy === null;
    this.filledBox.hidden = !filling || this.filled === undefined;
    if (filling || !this.proposed) this.diff.hide();
    else this.diff.element.hidden = false;
  }

  say(text, bad = false) {
    setText(this.said, text);
    this.said.classList.toggle('nde-bad', bad);
  }

  turn(tool) {
    if (tool !== this.state.tool) this.edit({ tool });
    this.say('');
  }

  // -- editing --------------------------------------------------------------------------------------

  key(event) {
    if (this.undoKey(event) || !(event.altKey || event.ctrlKey) || event.metaKey) return;
    // The code, because Alt makes other characters of the letters on some keyboards.
    if (event.code === 'KeyM' && this.state.tool === 'fill') this.mask();
    else if (event.code === 'KeyP' && this.state.tool === 'revise') this.pin(...this.surface.selection);
    else return;
    event.preventDefault();
  }

  undoKey(event) {
    if (!(event.ctrlKey || event.metaKey) || event.altKey) return false;
    const key = event.key.toLowerCase();
    if (key === 'z' && !event.shiftKey) this.undo();
    else if (key === 'y' || (key === 'z' && event.shiftKey)) this.redo();
    else return false;
    event.preventDefault();
    return true;
  }

  /** The selection becomes a gap as long as it is; the gap at the caret becomes text; nothing becomes a new gap. */
  async mask() {
    const { doc } = this;
    const [start, end] = trimmed(doc.text, ...this.surface.selection);
    const at = this.listed.findIndex((gap) => start >= gap.start && end <= gap.end && (start < end || start > gap.start));
    if (at >= 0) {
      this.putBack(at);
      return;
    }
    const old = plain(doc, start, end);
    const length = old ? await this.tokens((/[ ]$/.test(doc.text.slice(0, start)) ? ' ' : '') + old) : 3;
    if (this.doc !== doc) return; // edited while the server counted
    const next = masked(doc, start, end, old ? length : 1, length);
    this.edit({ fill: next });
    const gap = this.listed.find((g) => g.start <= start && g.end > start) ?? this.listed[0];
    this.surface.select(gap.end);
    this.say(old ? `“${old}” is a gap of ${length} ${length === 1 ? 'cell' : 'cells'} now.` : 'A new gap of 1 to 3 cells.');
  }

  /** How many tokens a text has; by its words where the server cannot say. */
  async tokens(text) {
    let answer = null;
    try {
      const { model } = document.querySelector('#nd-status [data-model]')?.dataset ?? {};
      answer = await this.desk({ ask: 'count', text, model });
    } catch {
      answer = null;
    }
    return Math.max(1, answer?.tokens ?? text.trim().split(/\s+/).length);
  }

  putBack(index) {
    const gap = this.listed[index];
    if (!gap) return;
    this.edit({ fill: unmasked(this.doc, gap) });
    this.surface.select(gap.start, gap.start + (gap.was ?? '').length);
    this.say(gap.was ? `“${gap.was}” is back.` : 'The gap is gone.');
  }

  resize(index, shortest, longest) {
    this.edit({ fill: resized(this.doc, this.listed[index], shortest, longest) });
  }

  pin(start, end) {
    const { text, marks, words } = pinned(this.doc, start, end);
    if (!words.length) {
      this.say('Select a word to pin, or put the caret on one.', true);
      return;
    }
    const more = marks.length > this.doc.marks.length;
    this.edit({ revise: { text, marks } });
    const said = words.map((word) => text.slice(word.start, word.end)).join(' ');
    this.say(more ? `“${said}” is pinned.` : `“${said}” may change.`);
  }

  setClicking(on) {
    this.clicking = on;
    this.clickButton.setAttribute('aria-pressed', String(on));
    this.show();
  }

  // -- where text comes from ------------------------------------------------------------------------

  async fetchExamples() {
    let answer = null;
    try {
      answer = await this.desk({ ask: 'examples' });
    } catch {
      answer = null;
    }
    this.given = answer?.examples ?? [];
    this.examples.replaceChildren(el('option', '', { value: '', text: 'Start from an example…' }), ...this.given.map(({ name }, index) => el('option', '', { value: index, text: name })));
    this.examples.hidden = !this.given.length;
    if (this.given.length && !this.past.length) {
      this.state = this.withExample(this.given[0]);
      this.show();
    }
  }

  withExample({ tool, prompt, text, was }) {
    const marks = gapsIn(text).map((gap, index) => ({ start: gap.start, end: gap.end, was: was[index] }));
    return { ...this.state, tool, prompt, [tool]: { text, marks: tool === 'fill' ? marks : [] } };
  }

  takeExample() {
    const example = this.given[Number(this.examples.value)];
    if (this.examples.value === '' || !example) return;
    this.examples.value = '';
    this.filled = undefined;
    this.proposed = false;
    this.edit(this.withExample(example));
    this.say('');
  }

  toggleSchema() {
    this.schemaBox.hidden = !this.schemaBox.hidden;
    this.schemaButton.setAttribute('aria-expanded', String(!this.schemaBox.hidden));
    (this.schemaBox.hidden ? this.schemaButton : this.schema).focus();
  }

  async makeSkeleton() {
    let answer = null;
    try {
      answer = await this.desk({ ask: 'schema', text: this.schema.value });
    } catch {
      answer = { error: 'The server does not answer; check the connection and try again.' };
    }
    if (typeof answer?.template !== 'string') {
      this.say(answer?.error ?? 'The server does not answer; try again.', true);
      return;
    }
    this.edit({ fill: { text: answer.template, marks: [] } });
    this.toggleSchema();
    this.say('The skeleton is valid JSON whatever fills its gaps.');
  }

  /** The answer that the player shows becomes the draft. */
  takeRun() {
    const player = this.player();
    const lane = player?.store.lanes[player.selection.lane];
    if (player?.store.blind?.best === null) this.say('Vote on the blind race first; then its answers can be revised.', true);
    else if (!lane?.tail) this.say(lane ? 'The run has not ended yet; wait for it, or stop it.' : 'The player shows no run; run a prompt first.', true);
    else {
      this.edit({ prompt: lane.request.prompt ?? '', revise: { text: lane.text(lane.tail.output.ids), marks: [] } });
      this.proposed = false;
      this.show();
      this.say('The draft is the answer that the player shows.');
    }
  }

  useFilled(tool) {
    this.edit({ tool, [tool]: { text: this.filled, marks: [] } });
    this.say(tool === 'fill' ? 'The text has no gaps now; Undo gives them back.' : 'The filled text is the draft.');
    if (tool === 'revise') this.proposed = false;
    this.show();
  }

  takeMerged(doc) {
    this.edit({ revise: doc });
    this.proposed = false;
    this.show();
    this.surface.area.focus();
    this.say('The merged text is the draft.');
  }

  again(doc) {
    this.takeMerged(doc);
    this.begin();
  }

  // -- runs -----------------------------------------------------------------------------------------

  begin() {
    const { tool, prompt } = this.state;
    const { text, marks } = this.doc;
    if (this.busy) return;
    this.busy = tool === 'fill' ? 'infill' : 'revise';
    this.sent = this.doc;
    this.say(tool === 'fill' ? 'Filling; the player shows every forward.' : 'Revising; the player shows every forward.');
    this.show();
    const pins = tool === 'revise' ? marks.map(({ start, end }) => [start, end]) : [];
    // Python counts characters, JavaScript counts halves of some of them.
    const at = (index) => [...text.slice(0, index)].length;
    this.send(this.busy, { prompt, text, pins: pins.map((pair) => pair.map(at)) });
  }

  /** Take the answer to the run that is on, as a JSON string. */
  receive(json) {
    const message = JSON.parse(json);
    if (this.busy === null || message.seq === this.seen) return;
    this.seen = message.seq;
    this.busy = null;
    this.say('');
    if (message.kind === 'filled') {
      this.filled = message.text;
      setText(this.filledText, message.text);
    } else if (message.kind === 'proposal') {
      this.proposed = true;
      this.diff.show(message, this.sent.marks);
    } else {
      this.say(message.problem ?? 'The run was stopped; nothing has changed.', Boolean(message.problem));
    }
    this.show();
  }
}

/** Put an editor into `root`. Options: id, desk (asks the server), send (begins runs), player (the handle of the player). */
export function mount(root, options) {
  const editor = new Editor(root, options);
  window.__nemodiff ??= { players: {} };
  window.__nemodiff.editors = { ...window.__nemodiff.editors, [options.id]: editor };
  return editor;
}
