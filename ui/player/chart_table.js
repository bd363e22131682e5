// A table that says what a chart shows: sortable, and with a button a row where the row can be opened.

import { el } from './dom.js';

// Outlines of the markers on a 12 × 12 grid.
const SHAPES = {
  circle: 'M6 1a5 5 0 1 0 0 10a5 5 0 1 0 0-10z', square: 'M1.5 1.5h9v9h-9z', diamond: 'M6 .5l5.5 5.5L6 11.5.5 6z',
  'triangle-up': 'M6 1l5.5 10H.5z', star: 'M6 .5l1.6 3.7 4 .4-3 2.7.9 4L6 9.2l-3.5 2.1.9-4-3-2.7 4-.4z',
};

/** A table without rows yet. `pick` hears the key of a chosen row. */
export function mountTable({ base, pick }) {
  const caption = el('h2', 'ndc-caption');
  const links = el('span', 'ndc-links');
  const empty = el('p', 'ndc-empty');
  const box = el('div', 'ndc-box', { tabindex: '0', role: 'region' });
  const element = el('div', 'ndc-table', { hidden: true }, el('div', 'ndc-bar', {}, caption, links), empty, box);
  let content = null;
  let selected = null;
  let sort = { column: -1, down: false };

  function show(table, key) {
    element.hidden = !table;
    if (!table) return;
    if (content && content.columns.join() !== table.columns.join()) sort = { column: -1, down: false };
    content = table;
    selected = key;
    caption.textContent = table.caption;
    box.setAttribute('aria-label', table.caption);
    empty.textContent = table.empty || '';
    empty.hidden = table.rows.length > 0 || !table.empty;
    box.hidden = !table.rows.length;
    links.replaceChildren(...(table.downloads || []).map((link) => el('a', '', { href: base + link.path, download: true, text: link.name })));
    build();
  }

  function build() {
    const focused = box.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
    const rows = [...content.rows];
    if (sort.column >= 0) rows.sort((a, b) => compare(a.order[sort.column], b.order[sort.column], sort.down ? -1 : 1));
    const head = content.columns.map((name, n) => {
      const state = sort.column === n ? (sort.down ? 'descending' : 'ascending') : 'none';
      const button = el('button', '', { type: 'button', text: name, 'data-focus': `sort ${n}`, onclick: () => order(n) });
      return el('th', '', { scope: 'col', 'aria-sort': state }, button);
    });
    if (content.action) head.push(el('th', '', { scope: 'col' }, el('span', 'ndc-heard', { text: content.action })));
    const body = rows.map((row) => line(row, content));
    box.replaceChildren(el('table', '', {}, el('thead', '', {}, el('tr', '', {}, ...head)), el('tbody', '', {}, ...body)));
    if (focused) box.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  }

  function line(row, { action, long = [] }) {
    const cells = row.cells.map((text, n) => {
      const words = el('span', long.includes(n) ? 'ndc-long' : '', { text, title: long.includes(n) ? text : null });
      if (n) return el('td', '', {}, words);
      return el('th', '', { scope: 'row' }, el('span', 'ndc-name', {}, ...(row.look ? [marker(row.look)] : []), words));
    });
    const openable = action && row.key !== null;
    if (action) {
      const button = openable && el('button', 'ndc-open', {
        type: 'button', text: action, 'aria-label': `${action}: ${row.cells[0].slice(0, 80)}`, 'data-focus': `row ${row.key}`,
      });
      cells.push(el('td', 'ndc-act', {}, ...(button ? [button] : [])));
    }
    const attributes = openable ? { 'data-key': row.key, onclick: () => pick(row.key) } : {};
    return el('tr', '', { 'aria-current': row.key !== null && row.key === selected ? 'true' : null, ...attributes }, ...cells);
  }

  function order(column) {
    // Numbers are first asked for from the top, words from A.
    const words = typeof content.rows[0]?.order[column] === 'string';
    sort = sort.column === column ? { column, down: !sort.down } : { column, down: !words };
    build();
  }

  function select(key) {
    selected = key;
    for (const row of box.querySelectorAll('tbody tr')) {
      if (row.dataset.key !== undefined && row.dataset.key === key) row.setAttribute('aria-current', 'true');
      else row.removeAttribute('aria-current');
    }
  }

  return { element, show, select };
}

function compare(a, b, direction) {
  if (a === null || b === null) return (a === null) - (b === null); // what is not known stands last either way
  return a < b ? -direction : a > b ? direction : 0;
}

function marker([colour, symbol]) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
  svg.setAttribute('viewBox', '0 0 12 12');
  svg.setAttribute('aria-hidden', 'true');
  svg.style.fill = `var(${colour})`;
  path.setAttribute('d', SHAPES[symbol] || SHAPES.circle);
  svg.append(path);
  return svg;
}
