// The What-if panel: change one thing at the step in view and let the model go on from there. The answer is a
// child trace beside its parent; the tree of all of them stays at hand.

import { el, setAttr, setText } from './dom.js';
import { cellText } from './pieces.js';
import { modeName, plural } from './words.js';

const MODES = ['ar', 'diffusion', 'linear_spec', 'quadratic_spec'];
const FILLING = ['diffusion', 'refine', 'infill']; // modes whose threshold commits cells
const EXPECT = { pin: 'keep it, whatever comes', remask: 'open the cell again', ban: 'anything but this token', force: 'this token instead' };

class WhatIf {
  constructor(context) {
    this.context = context;
    this.action = 'none';
    this.token = null;
    this.where = el('p', 'ndp-whatif-where');
    this.actions = el('div', 'ndp-whatif-actions', { role: 'radiogroup', 'aria-label': 'What to do with the cell' });
    this.radios = new Map();
    for (const [id, label] of [['none', 'Leave it'], ['pin', 'Pin'], ['remask', 'Remask'], ['ban', 'Ban'], ['force', 'Force']]) {
      const input = el('input', '', { type: 'radio', name: 'ndp-whatif', value: id, onchange: () => this.choose(id) });
      this.radios.set(id, input);
      this.actions.append(el('label', 'ndp-whatif-choice', { title: EXPECT[id] ?? 'change settings only' }, input, label));
    }
    this.candidates = el('div', 'ndp-whatif-tokens', { role: 'group', 'aria-label': 'Candidates' });
    this.text = el('input', 'ndp-field', { type: 'text', maxlength: 40, placeholder: 'or type a token', 'aria-label': 'Token to write', oninput: () => this.typed() });
    this.tokens = el('div', 'ndp-whatif-row', { hidden: true }, this.candidates, this.text);
    this.mode = el('select', 'ndp-field', { 'aria-label': 'Mode', onchange: () => this.changedMode() }, el('option', '', { value: '', text: 'same mode' }), ...MODES.map((mode) => el('option', '', { value: mode, text: modeName(mode) })));
    this.threshold = el('input', 'ndp-field', { type: 'number', min: 0, max: 1, step: 0.05, 'aria-label': 'Threshold', placeholder: 'same' });
    this.block = el('input', 'ndp-field', { type: 'number', min: 2, max: 64, step: 1, 'aria-label': 'Block length', placeholder: 'same' });
    const field = (name, input) => el('label', 'ndp-whatif-field', {}, el('span', '', { text: name }), input);
    this.thresholdField = field('threshold', this.threshold);
    this.blockField = field('block', this.block);
    this.go = el('button', 'ndp-chip ndp-go', { type: 'button', text: 'Continue from here', onclick: () => this.send() });
    this.problem = el('p', 'ndp-panel-note ndp-whatif-problem', { role: 'alert' });
    this.tree = el('ol', 'ndp-tree', { 'aria-label': 'Runs that came from one another' });
    this.element = el(
      'div', 'ndp-whatif', {},
      el('div', 'ndp-whatif-form', {}, this.where, this.actions, this.tokens, el('div', 'ndp-whatif-row', {}, field('continue as', this.mode), this.thresholdField, this.blockField, this.go), this.problem),
      el('section', 'ndp-whatif-tree', { 'aria-label': 'Tree of runs' }, el('h3', 'ndp-title', { text: 'Tree' }), this.tree),
    );
  }

  update({ lane, step, cells, stale }) {
    this.lane = lane;
    const { position } = this.context.focus;
    const cell = position === null ? null : (cells.get(position) ?? null);
    const key = `${lane.head.id} ${step} ${position} ${cell?.token} ${cell?.status} ${lane.ended}`;
    if (key !== this.key) {
      this.key = key;
      this.redo(lane, step, position, cell);
    }
    if (stale) this.grow(lane);
  }

  redo(lane, step, position, cell) {
    this.step = step;
    this.position = position;
    this.cell = cell;
    const place = step < 0 ? 'before the first step' : `after step ${step + 1} of ${lane.steps.length}`;
    const what = position === null ? 'No cell is chosen: click one, here or in the map, to act on it.' : `Cell ${position - lane.start + 1}: ${cell?.token != null ? `“${cellText(lane.piece(cell.token))}”` : cell ? 'masked' : 'not reached yet'}.`;
    setText(this.where, `The run ${place}. ${what}`);
    const allowed = { none: true, pin: cell?.token != null, remask: cell?.token != null, ban: position !== null, force: position !== null };
    for (const [id, input] of this.radios) input.disabled = !allowed[id];
    if (!allowed[this.action]) this.action = 'none';
    this.radios.get(this.action).checked = true;
    this.token = null;
    this.offer(lane, step, position, cell);
    this.choose(this.action);
  }

  offer(lane, step, position, cell) {
    const seen = position === null ? null : lane.candidates(position, step);
    const ids = [...new Set([...(cell?.token != null ? [cell.token] : []), ...(seen?.ids ?? [])])];
    this.candidates.replaceChildren(...ids.map((id) => {
      const button = el('button', 'ndp-token-chip', { type: 'button', text: cellText(lane.piece(id)), 'aria-pressed': 'false', title: `token id ${id}`, onclick: () => this.take(id) });
      button.dataset.token = String(id);
      return button;
    }));
    this.text.value = '';
  }

  choose(action) {
    this.action = action;
    if (action === 'ban' && this.token === null && this.cell?.token != null) this.take(this.cell.token);
    this.ready();
  }

  take(id) {
    this.token = id;
    this.text.value = '';
    for (const button of this.candidates.children) setAttr(button, 'aria-pressed', String(Number(button.dataset.token) === id));
    this.ready();
  }

  typed() {
    this.token = null;
    for (const button of this.candidates.children) setAttr(button, 'aria-pressed', 'false');
    this.ready();
  }

  changedMode() {
    const mode = this.mode.value || this.lane?.mode;
    this.thresholdField.hidden = !FILLING.includes(mode);
    this.blockField.hidden = mode === 'ar';
  }

  ready() {
    const needs = this.action === 'ban' || this.action === 'force';
    this.tokens.hidden = !needs;
    this.changedMode();
    const missing = !this.lane?.ended ? 'Let the run finish, or stop it first.' : needs && this.token === null && !this.text.value ? 'Choose a token, or type one.' : '';
    this.go.disabled = missing !== '';
    setText(this.problem, missing);
  }

  send() {
    const number = (input) => (input.value === '' || input.closest('label').hidden ? null : Number(input.value));
    const needs = this.action === 'ban' || this.action === 'force';
    this.context.send('fork', {
      position: this.position,
      action: this.action,
      token: needs ? this.token : null,
      text: needs && this.token === null ? this.text.value : null,
      mode: this.mode.value || null,
      threshold: number(this.threshold),
      block_length: number(this.block),
    });
  }

  grow(lane) {
    const rows = this.context.family.tree(lane.head.id);
    this.tree.replaceChildren(...rows.map((row) => {
      const label = row.label ? `step ${row.step + 1}: ${row.label}` : 'the first run';
      const open = el('button', 'ndp-tree-node', { type: 'button', 'aria-current': row.id === lane.head.id ? 'true' : null, onclick: () => this.context.open(row.run, { lane: row.lane, step: this.step, position: this.position }) }, el('span', '', { text: label }), el('small', '', { text: modeName(row.mode) }));
      const item = el('li', '', {}, open);
      item.style.setProperty('--nd-depth', String(row.depth));
      return item;
    }));
    setAttr(this.tree, 'title', plural(rows.length, 'run'));
  }
}

export const WHATIF = { id: 'whatif', title: 'What if', fits: (lane, context) => context.canSend && !lane.remote, make: (context) => new WhatIf(context) };
