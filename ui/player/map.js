// The map: every position of the answer across, every step downwards, one tile for each. What is drawn is kept
// as a picture that is only painted again when data, theme, colours or zoom change; a frame copies it and adds the
// playhead, so that playing and panning cost little however long the run is.

import { SCALES, Palette, scaleOf } from './map_colour.js';
import { dataOf, findingsOf } from './map_data.js';
import { Painter, rulers, TEXT_WIDTH } from './map_draw.js';
import { Found } from './map_found.js';
import { highlight } from './map_highlight.js';
import { MapLegend } from './map_legend.js';
import { CanvasPen } from './map_pens.js';
import { Pointing } from './map_pointing.js';
import { capacity, Viewport } from './map_view.js';
import { mapSentence, tileSentence } from './map_words.js';
import { el, setAttr, setText } from './dom.js';

export { mapPng, mapSvg } from './map_export.js';

const HINT = 'Point at a tile to read it, or use the arrow keys; Enter or a click goes to its step and pins its cell.';
const LEFT = 46; // CSS px of the rulers
const TOP = 20;
const TALLEST = 400; // CSS px of the tiles' area
const TALLEST_NARROW = 300;
const ROW = 24;

class MapPanel {
  constructor(context) {
    this.context = context;
    this.view = new Viewport();
    this.scale = SCALES[0];
    this.cursor = null; // the tile that keys move, {column, row}
    this.hover = null;
    this.build();
  }

  build() {
    this.modes = new Map(SCALES.map((scale) => [scale.id, el('button', 'ndp-map-mode', { type: 'button', text: scale.title, 'data-scale': scale.id, onclick: () => this.colourBy(scale.id) })]));
    this.found = new Found(this.context, (note) => this.visit(note));
    const tool = (name, text, title, act) => el('button', 'ndp-button', { type: 'button', text, title, 'aria-label': title, 'data-tool': name, onclick: act });
    this.out = tool('out', '−', 'Zoom out (-)', () => this.zoom(1 / 1.6));
    this.in = tool('in', '+', 'Zoom in (+)', () => this.zoom(1.6));
    this.whole = tool('fit', 'Fit', 'Show the whole map (0)', () => this.fit());
    const head = el('div', 'ndp-map-head', {}, el('div', 'ndp-map-modes', { role: 'group', 'aria-label': 'Colour tiles by' }, ...this.modes.values()), this.found.element, el('div', 'ndp-map-tools', {}, this.out, this.in, this.whole));
    this.canvas = el('canvas', 'ndp-map-canvas', { tabindex: 0, role: 'application', 'aria-roledescription': 'map', onkeydown: (event) => this.key(event), onfocus: () => this.focused(), onblur: () => this.blurred() });
    this.say = el('p', 'ndp-map-say', { role: 'status', 'aria-live': 'off', text: HINT });
    this.legend = new MapLegend();
    this.element = el('div', 'ndp-map', {}, head, this.canvas, this.say, this.legend.element);
    this.pen = this.canvas.getContext('2d');
    this.picture = document.createElement('canvas');
    this.pointing = new Pointing(this.canvas, this);
  }

  // -- what to show -------------------------------------------------------------------------------

  update(frame) {
    const before = this.frame;
    const { pinned, passing } = this.context.focus;
    this.frame = { ...frame, pinned, passing };
    const changedLane = frame.lane !== before?.lane;
    if (changedLane) this.begin();
    else if (!frame.stale && ['step', 'still', 'pinned', 'passing'].every((key) => this.frame[key] === before[key])) return;
    if (changedLane || frame.stale) this.refresh();
    if (!changedLane && frame.step !== before.step && before.step >= 0 && this.view.showsRow(before.step) && !this.view.showsRow(frame.step)) {
      this.view.reveal(null, frame.step); // whoever watches the playhead goes on watching it
    }
    this.found.frame = this.frame;
    this.draw();
    if (frame.still) this.describe();
  }

  begin() {
    this.cursor = null;
    this.hover = null;
    this.found.forget();
    this.view.reset();
    this.painted = null;
    this.height = 0;
    this.data = dataOf(this.frame.lane);
  }

  /** Steps, theme, size or findings may have changed. */
  refresh() {
    const { lane } = this.frame;
    this.data = dataOf(lane);
    this.findings = findingsOf(lane);
    if (!this.palette) this.palette = new Palette(this.element);
    else if (this.palette.refresh()) this.painted = null;
    this.strokes = null;
    if (!this.scale.fits(this.data, this.findings)) this.scale = SCALES[0];
    for (const scale of SCALES) {
      this.modes.get(scale.id).hidden = !scale.fits(this.data, this.findings);
      setAttr(this.modes.get(scale.id), 'aria-pressed', String(scale === this.scale));
    }
    this.painter = new Painter({ data: this.data, findings: this.findings, scale: this.scale, palette: this.palette });
    this.legend.update(this.data, this.findings, this.scale);
    this.measure();
    this.found.update(this.findings, this.frame);
  }

  measure() {
    const { lane } = this.frame;
    const width = this.canvas.clientWidth;
    if (!width) return;
    const unit = window.devicePixelRatio || 1;
    const tallest = width < 480 ? TALLEST_NARROW : TALLEST;
    // A run that is still growing has its full height from the start, so that nothing below is pushed.
    if (!this.height || width !== this.measured) this.height = lane.ended ? Math.max(96, Math.min(tallest, this.data.rows * ROW)) : tallest;
    this.measured = width;
    const [wide, high] = [Math.round(width * unit), Math.round((this.height + TOP) * unit)];
    if (this.canvas.width !== wide || this.canvas.height !== high) {
      this.canvas.width = wide;
      this.canvas.height = high;
      this.canvas.style.height = `${this.height + TOP}px`;
    }
    this.area = { x: Math.round(LEFT * unit), y: Math.round(TOP * unit) };
    this.area.width = wide - this.area.x;
    this.area.height = high - this.area.y;
    const grown = lane.ended ? (size) => size : capacity;
    this.view.set({ width: this.area.width, height: this.area.height, unit, columns: grown(this.data.columns), rows: grown(this.data.rows) });
    this.touch();
  }

  /** A fitted map leaves swipes to the page; a zoomed one needs them. */
  touch() {
    this.canvas.style.touchAction = this.view.fitted ? 'pan-y' : 'none';
    this.out.disabled = this.view.fitted;
    this.in.disabled = !this.view.canGrow;
    this.whole.disabled = this.view.fitted;
  }

  colourBy(id) {
    this.scale = scaleOf(id);
    this.painted = null;
    this.refresh();
    this.draw();
  }

  // -- drawing ------------------------------------------------------------------------------------

  schedule() {
    this.pending ||= requestAnimationFrame(() => this.draw());
  }

  draw() {
    cancelAnimationFrame(this.pending);
    this.pending = 0;
    if (!this.area || !this.painter || !this.canvas.isConnected) return;
    this.paint();
    const { pen, view, area, palette, painted } = this;
    const { unit } = view;
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.fillStyle = palette.surface;
    pen.fillRect(0, 0, this.canvas.width, this.canvas.height);
    const [width, height] = [Math.min(area.width, painted.width), Math.min(area.height, painted.height)];
    pen.drawImage(this.picture, view.x - painted.x, view.y - painted.y, width, height, area.x, area.y, width, height);
    const strokes = (this.strokes ??= new CanvasPen(pen, palette, unit));
    const [columns, rows] = view.touching(view.visible);
    rulers(strokes, { data: this.data, palette, plan: view.plan, area, shift: { x: -view.x, y: -view.y }, columns: [columns[0], Math.min(columns[1], this.data.columns)], rows });
    strokes.within(area.x, area.y, area.width, area.height, () => highlight(strokes, this.marked()));
  }

  /** What is highlighted: the playhead, a pinned and a passing column, the tiles of pointer and keys. */
  marked() {
    const { view, area, palette, frame, data } = this;
    const { pinned, passing } = this.context.focus;
    const column = (position) => (position === null ? null : position - data.lane.start);
    const cursor = document.activeElement === this.canvas ? this.cursor : null;
    return { view, area, palette, columns: data.columns, rows: data.rows, step: frame.step, pinned: column(pinned), passing: column(passing), hover: this.hover, cursor };
  }

  /** Bring the picture up to date: whole, or only the rows that have come. */
  paint() {
    const { data, scale, view, findings, picture } = this;
    const key = [scale.id, scale.grain?.(data), view.width, view.height, view.unit, findings.notes.length].join();
    const seen = view.visible;
    const old = this.painted;
    const fits = old?.key === key && old.findings === findings && old.x <= seen.x && old.y <= seen.y && old.x + old.width >= seen.x + seen.width && old.y + old.height >= seen.y + seen.height;
    if (fits && old.rows === data.rows) return;
    if (!fits) {
      const margin = view.width >= TEXT_WIDTH * view.unit ? 0.15 : 0.4;
      const region = around(seen, margin, view);
      this.painted = { key, findings, ...region };
      picture.width = region.width;
      picture.height = region.height;
    }
    const pen = picture.getContext('2d', { alpha: false });
    const region = this.painted;
    const plan = view.plan;
    const [columns, rows] = view.touching(region);
    // Rows that have come may have moved the border of the block that was being worked on.
    const from = fits ? Math.max(rows[0], Math.min(old.rows, old.block)) : rows[0];
    const top = fits ? Math.max(region.y, plan.top(from) - Math.ceil(view.unit)) : region.y;
    const strokes = new CanvasPen(pen, this.palette, view.unit);
    pen.setTransform(1, 0, 0, 1, -region.x, -region.y);
    strokes.within(region.x, top, region.width, region.y + region.height - top, () => {
      strokes.rect(region.x, top, region.width, region.y + region.height - top, this.palette.surface);
      this.painter.tiles(strokes, plan, columns, [Math.max(0, from - 1), rows[1]]);
      this.painter.wrongs(strokes, plan, columns, [Math.max(0, from - 1), rows[1]]);
    });
    this.painted.rows = data.rows;
    this.painted.block = data.blocks.at(-1)?.from ?? data.rows;
  }

  // -- zoom, cursor, choice -----------------------------------------------------------------------

  moved() {
    this.touch();
    this.schedule();
  }

  /** Zoom about a point of the canvas in CSS px, or about the cursor, or the middle. */
  zoom(factor, x = null, y = null) {
    const { view, area } = this;
    const { unit } = view;
    if (x !== null) view.zoom(factor, x * unit - area.x, y * unit - area.y);
    else {
      view.zoom(factor);
      const tile = this.cursor ?? this.playhead();
      view.reveal(tile.column, tile.row);
    }
    this.moved();
  }

  fit() {
    this.view.reset();
    this.moved();
  }

  pan(dx, dy) {
    this.view.pan(dx * this.view.unit, dy * this.view.unit);
    this.moved();
  }

  /** The tile at a point of the canvas in CSS px, or null. */
  tileAt(x, y) {
    const { view, area, data } = this;
    if (!area || !data) return null;
    const [px, py] = [x * view.unit - area.x, y * view.unit - area.y];
    const tile = view.tileAt(px, py);
    const inside = px >= 0 && py >= 0 && tile.column < data.columns && tile.row < data.rows;
    return inside ? tile : null;
  }

  point(tile) {
    if (tile?.column === this.hover?.column && tile?.row === this.hover?.row) return;
    this.hover = tile;
    this.context.focus.pass(tile ? this.data.lane.start + tile.column : null);
    setAttr(this.say, 'aria-live', 'off');
    this.tell(tile ?? this.cursor);
    this.schedule();
  }

  choose(tile) {
    this.cursor = tile;
    this.tell(tile);
    this.context.select({ step: tile.row, position: this.data.lane.start + tile.column });
  }

  /** Where keys begin: the pinned cell at the step shown, or the block at work. */
  playhead() {
    const { lane, span } = this.frame;
    const column = (this.context.focus.pinned ?? span?.start ?? lane.start) - lane.start;
    return { column: Math.max(0, Math.min(this.data.columns - 1, column)), row: Math.max(0, this.frame.step) };
  }

  key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || !this.data?.rows) return;
    const { column, row } = this.cursor ?? this.playhead();
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1], PageUp: [0, -10], PageDown: [0, 10], Home: [-column, 0], End: [this.data.columns, 0] };
    const acts = { '+': () => this.zoom(1.6), '=': () => this.zoom(1.6), '-': () => this.zoom(1 / 1.6), 0: () => this.fit(), Enter: () => this.choose({ column, row }) };
    if (Object.hasOwn(acts, event.key)) acts[event.key]();
    else if (Object.hasOwn(moves, event.key)) this.move(column, row, moves[event.key]);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  move(column, row, [dx, dy]) {
    const inside = (value, size) => Math.max(0, Math.min(size - 1, value));
    this.cursor = { column: inside(column + dx, this.data.columns), row: inside(row + dy, this.data.rows) };
    this.view.reveal(this.cursor.column, this.cursor.row);
    this.context.focus.pass(this.data.lane.start + this.cursor.column);
    setAttr(this.say, 'aria-live', 'polite');
    this.tell(this.cursor);
    this.moved();
  }

  focused() {
    if (!this.data?.rows || !this.canvas.matches(':focus-visible')) return;
    this.cursor ??= this.playhead();
    this.tell(this.cursor);
    this.schedule();
  }

  blurred() {
    if (!this.hover) this.context.focus.pass(null);
    this.schedule();
  }

  /** Go to a wrong commit and read it out. */
  visit(note) {
    const tile = { column: note.position - this.data.lane.start, row: note.step };
    this.view.reveal(tile.column, tile.row);
    setAttr(this.say, 'aria-live', 'polite');
    this.choose(tile);
    this.moved();
  }

  tell(tile) {
    setText(this.say, tile ? tileSentence(this.data, this.findings, tile.column, tile.row) : HINT);
  }

  describe() {
    setAttr(this.canvas, 'aria-label', `${mapSentence(this.data, this.findings, this.frame.step)}. Arrow keys go from tile to tile.`);
  }

  resized() {
    this.measured = 0;
  }

  closed() {
    cancelAnimationFrame(this.pending);
    this.pending = 0;
    this.hover = null;
    this.context.focus.pass(null);
  }
}

/** The part of the content to paint: what is seen and some around it, so that panning rarely paints. */
function around(seen, margin, view) {
  const stretch = (from, room, most) => {
    const low = Math.max(0, Math.floor(from - room * margin));
    return [low, Math.max(room, Math.min(Math.ceil(Math.max(most, from + room)), Math.ceil(from + room * (1 + margin))) - low)];
  };
  const [x, width] = stretch(seen.x, seen.width, view.size.columns * view.width);
  const [y, height] = stretch(seen.y, seen.height, view.size.rows * view.height);
  return { x, y, width, height };
}

export const MAP = {
  id: 'map',
  title: 'Map',
  fits: () => true,
  make: (context) => new MapPanel(context),
};
