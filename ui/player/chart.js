// A chart and its table, drawn from one message. plotly.js is fetched when the first chart comes into sight.

import { mountTable } from './chart_table.js';
import { el, setText } from './dom.js';
import { watchTheme } from './style.js';

const NEAR = '300px'; // how far from the window's edge a chart begins to load
const RING = { type: 'scatter', mode: 'markers', hoverinfo: 'skip', showlegend: false, cliponaxis: false };

let plotly = null; // one promise for all charts of the page

function load(address) {
  plotly ??= new Promise((done, failed) => {
    const script = el('script', '', { src: address, async: true });
    script.addEventListener('load', () => done(window.Plotly));
    script.addEventListener('error', () => {
      plotly = null;
      failed(new Error('plotly.js could not be fetched'));
    });
    document.head.append(script);
  });
  return plotly;
}

/** Put a chart into `root`. `send` hears the key of a chosen point or row; charts of one group share their choice. */
export function mount(root, { id, group = id, base = '', plotly: address, send = () => {} }) {
  const views = el('div', 'ndc-views', { role: 'group', 'aria-label': 'Measure' });
  const plot = el('div', 'ndc-plot', { role: 'img', hidden: true });
  const note = el('p', 'ndc-note');
  const probe = el('span', 'ndc-probe', { 'aria-hidden': 'true' });
  const table = mountTable({ base, pick });
  const section = el('section', 'ndc', {}, views, plot, table.element, note, probe);
  root.replaceChildren(section);

  const state = { seq: 0, drawn: 0, view: 0, selected: null, message: null };
  window.__nemodiff ??= { players: {} };
  window.__nemodiff.charts = { ...window.__nemodiff.charts, [id]: state };
  let library = null;
  let filled = 0; // the message that the table shows

  function pick(key) {
    document.dispatchEvent(new CustomEvent('ndc-pick', { detail: { group, key } }));
    send(key);
  }

  function receive(text) {
    const message = JSON.parse(text);
    if (message.seq <= state.seq) return;
    Object.assign(state, { seq: message.seq, message });
    if (message.selected !== undefined) state.selected = message.selected;
    const figures = message.figures || [];
    plot.hidden = !figures.length;
    views.hidden = figures.length < 2;
    state.view = Math.min(state.view, Math.max(0, figures.length - 1));
    views.replaceChildren(
      ...figures.map((figure, n) => el('button', '', { type: 'button', text: figure.name, 'aria-pressed': String(n === state.view), onclick: () => turn(n) })),
    );
    plot.setAttribute('aria-label', message.summary || '');
    setText(note, message.note || '');
    note.hidden = !message.note;
    fill();
    draw();
  }

  // What no one sees is not in the page: the tables of a hidden view would be most of its elements.
  function fill() {
    if (filled === state.seq || !section.offsetWidth) return;
    filled = state.seq;
    table.show(state.message.table, state.selected);
  }

  function turn(view) {
    state.view = view;
    [...views.children].forEach((button, n) => button.setAttribute('aria-pressed', String(n === view)));
    draw();
  }

  // Plotly knows neither variables nor light-dark(): names become the colours that they have here and now.
  function colours(value) {
    if (typeof value === 'string' && value.startsWith('--')) {
      probe.style.color = `var(${value})`;
      return getComputedStyle(probe).color;
    }
    if (Array.isArray(value)) return value.map(colours);
    if (value && typeof value === 'object') return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, colours(v)]));
    return value;
  }

  function draw() {
    const figure = state.message?.figures?.[state.view];
    if (!figure || !library || !plot.offsetWidth) return; // drawn when it comes into sight
    const ring = chosen(figure.data, state.selected);
    const data = colours(ring ? [...figure.data, ring] : figure.data);
    library.react(plot, data, layout(colours(figure.layout), colours), { displayModeBar: false, responsive: false });
    if (!state.drawn) plot.on('plotly_click', ({ points }) => points[0]?.customdata != null && pick(String(points[0].customdata)));
    state.drawn = state.seq;
  }

  document.addEventListener('ndc-pick', ({ detail }) => {
    if (detail.group !== group) return;
    state.selected = detail.key;
    table.select(detail.key);
    draw();
  });
  watchTheme(section, () => requestAnimationFrame(draw));
  new ResizeObserver(() => (state.drawn && plot.offsetWidth ? library.Plots.resize(plot) : draw())).observe(plot);
  new ResizeObserver(fill).observe(section); // before the frame is drawn in which it comes into view
  new IntersectionObserver(
    (entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      load(address).then((found) => { library = found; draw(); }, (error) => setText(plot, `${error.message}; the table holds the same numbers.`));
    },
    { rootMargin: NEAR },
  ).observe(plot);
  return { receive };
}

function chosen(data, key) {
  for (const trace of data) {
    const n = (trace.customdata || []).indexOf(key);
    if (n >= 0) return { ...RING, x: [trace.x[n]], y: [trace.y[n]], marker: { symbol: 'circle-open', size: 24, color: '--ndc-ink', line: { width: 2 } } };
  }
  return null;
}

function layout(own, colours) {
  const axis = { gridcolor: '--ndc-line', zerolinecolor: '--ndc-line', linecolor: '--ndc-line', fixedrange: true, automargin: true, ticks: '' };
  const common = colours({
    paper_bgcolor: 'rgba(0,0,0,0)',
    plot_bgcolor: 'rgba(0,0,0,0)',
    font: { family: 'ui-sans-serif, system-ui, sans-serif', size: 12, color: '--ndc-ink' },
    hoverlabel: { bgcolor: '--ndc-raised', bordercolor: '--ndc-edge', font: { color: '--ndc-ink', size: 13 }, align: 'left' },
    axis,
  });
  return {
    paper_bgcolor: common.paper_bgcolor, plot_bgcolor: common.plot_bgcolor, font: common.font, hoverlabel: common.hoverlabel,
    autosize: true, hovermode: 'closest', hoverdistance: 24, dragmode: false, showlegend: true,
    margin: { l: 8, r: 14, t: 10, b: 8 },
    legend: { orientation: 'h', x: 0, y: 1.02, xanchor: 'left', yanchor: 'bottom', font: { size: 12 } },
    ...own,
    xaxis: { ...common.axis, ...own.xaxis },
    yaxis: { ...common.axis, ...own.yaxis },
  };
}
