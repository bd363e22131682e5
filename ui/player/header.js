// The strip above the stage: what runs where, its state, its figures, and the prompt.

import { el, setAttr, setText } from './dom.js';
import { proseText } from './pieces.js';
import { count, ending, number, plural, requestName, seconds } from './words.js';

/** A row of named figures that is built once and then only rewritten. */
export class Figures {
  constructor(names, className = 'ndp-figures') {
    this.element = el('dl', className);
    this.cells = new Map();
    for (const [key, name, title] of names) {
      const value = el('dd', '', { text: '–' });
      const box = el('div', '', { title: title ?? null }, el('dt', '', { text: name }), value);
      this.cells.set(key, { box, value });
      this.element.append(box);
    }
  }

  set(key, text) {
    setText(this.cells.get(key).value, text);
  }

  show(key, shown) {
    this.cells.get(key).box.hidden = !shown;
  }
}

export const FIGURES = [
  ['tokens', 'tokens', 'Tokens of the answer at this step'],
  ['forwards', 'forwards', 'Model forwards run at this step, prefill included'],
  ['chunks', 'chunks', 'Parts in which the answer came from the server at this step; its forwards are not known'],
  ['nfe', 'NFE', 'Forwards of the whole run as the reference counts them'],
  ['tpf', 'TPF', 'Tokens per forward: tokens of the answer divided by NFE'],
  ['acceptance', 'acceptance', 'Mean acceptance length: tokens per verification, the bonus included'],
  ['rate', 'tokens/s', 'Tokens per second, prefill included'],
  ['first', 'first token', 'From the start of the run to the first token of its text, or to the first chunk of a server’s answer'],
  ['seconds', 'time', 'From the start of the run to its last forward, or to the last chunk of a server’s answer'],
];
const OF_FORWARDS = ['forwards', 'nfe', 'tpf', 'acceptance'];

/** Figures that only a finished run has; computed in Python, shown here. */
export function showMetrics(figures, metrics) {
  figures.set('nfe', count(metrics?.nfe ?? NaN));
  figures.set('tpf', number(metrics?.tpf ?? NaN));
  figures.set('acceptance', number(metrics?.acceptance_length ?? NaN));
  figures.set('rate', number(metrics?.tokens_per_second ?? NaN, 0));
  figures.set('first', seconds(metrics?.first_token_seconds ?? NaN));
}

/** Which figures a lane has: a server's answer has none of its forwards. `first`: whether the first token is of interest. */
export function fitFigures(figures, lane, first) {
  for (const key of OF_FORWARDS) figures.show(key, !lane.remote);
  figures.show('chunks', lane.remote);
  figures.show('first', first);
}

export class Header {
  constructor() {
    this.mode = el('h2', 'ndp-mode');
    this.model = el('span', 'ndp-model');
    this.state = el('span', 'ndp-state');
    this.preview = el('span', 'ndp-prompt-preview');
    this.prompt = el('div', 'ndp-prompt-text', { dir: 'auto' });
    this.promptSize = el('span', 'ndp-prompt-size');
    this.details = el('details', 'ndp-prompt', {}, el('summary', '', {}, el('span', 'ndp-prompt-word', { text: 'Prompt' }), this.preview, this.promptSize), this.prompt);
    this.fault = el('p', 'ndp-fault', { role: 'alert', hidden: true });
    this.figures = new Figures(FIGURES);
    this.back = el('button', 'ndp-chip ndp-back', { type: 'button', text: '← all lanes', title: 'Show all lanes again', hidden: true });
    this.element = el('header', 'ndp-header', {}, el('div', 'ndp-strip', {}, this.back, this.mode, this.model, this.state), this.figures.element, this.fault, this.details);
  }

  /** `lane` is the lane described (the first of a race); `reached` its step shown; `tokens` how many are out. */
  update({ lane, race, title, models = [], state, kind, fault, reached, tokens, back = null }) {
    this.back.hidden = back === null;
    this.back.onclick = back;
    setText(this.mode, race ? title : lane ? requestName(lane.request) : 'No run yet');
    setText(this.model, lane && new Set(models).size < 2 ? describe(lane.head.model) : '');
    setText(this.state, state);
    setAttr(this.state, 'data-kind', kind);
    setText(this.fault, fault ?? '');
    this.fault.hidden = !fault;
    this.figures.element.hidden = race || !lane;
    this.details.hidden = !lane;
    if (!lane) return;
    this.describePrompt(lane);
    if (race) return;
    const { metrics } = lane;
    // Cells behind the end token are filled before they are dropped: they never count as text.
    const of = (now, all) => (lane.ended ? `${count(Math.min(now, all))} / ${count(all)}` : count(now));
    const all = lane.tail?.output?.ids?.length ?? tokens;
    this.figures.set('tokens', lane.remote ? count(tokens >= all && lane.ended ? (metrics?.tokens ?? NaN) : lane.counted(tokens)) : of(tokens, all));
    this.figures.set('forwards', of(reached + 1, lane.steps.length));
    this.figures.set('chunks', of(reached + 1, lane.steps.length));
    fitFigures(this.figures, lane, lane.remote);
    this.figures.set('seconds', metrics ? seconds(metrics.seconds) : seconds(lane.timeAt(lane.last) / 1e9));
    showMetrics(this.figures, metrics);
    this.figures.show('acceptance', lane.mode === 'linear_spec' || lane.mode === 'quadratic_spec');
  }

  describePrompt(lane) {
    if (lane === this.lane) return;
    this.lane = lane;
    const { prompt } = lane.head;
    const text = proseText(typeof lane.request.prompt === 'string' ? lane.request.prompt : (prompt?.pieces ?? []).join(''));
    setText(this.preview, text);
    setText(this.prompt, text);
    setText(this.promptSize, lane.remote ? '' : plural(prompt?.ids?.length ?? 0, 'token'));
    this.details.open = false;
  }
}

function describe(model) {
  if (!model) return '';
  const size = model.parameters > 0 ? readable(model.parameters) : null;
  const name = String(model.id ?? '').split(/[\\/]/).filter(Boolean).slice(-2).join('/');
  return [name, size, model.device, String(model.dtype ?? '').replace('torch.', '')].filter(Boolean).join(' · ');
}

function readable(parameters) {
  if (parameters >= 1e9) return `${(parameters / 1e9).toFixed(1)}B`;
  return parameters >= 1e6 ? `${(parameters / 1e6).toFixed(1)}M` : `${Math.round(parameters / 1e3)}K`;
}

/** The state of a run in a word, and its kind for styling. */
export function stateOf(store) {
  if (store.fetching) return ['fetching…', 'wait'];
  if (store.fault) return ['failed', 'fault'];
  const opened = store.lanes.filter(Boolean);
  if (!opened.length) return [store.run ? 'starting…' : 'ready', 'wait'];
  if (!store.complete) return ['running', 'live'];
  const reasons = new Set(opened.map((lane) => lane.tail?.stop_reason));
  if (opened.length > 1) return [reasons.has('cancelled') ? 'stopped' : 'finished', 'done'];
  return [ending([...reasons][0]), 'done'];
}
