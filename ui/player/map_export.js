// The map as a picture of its own: SVG text or a PNG, with rulers, title and a legend.

import { Palette, scaleOf } from './map_colour.js';
import { dataOf, findingsOf } from './map_data.js';
import { Painter, rulers } from './map_draw.js';
import { drawSwatch, marksOf } from './map_legend.js';
import { CanvasPen, SvgPen } from './map_pens.js';
import { mapSentence } from './map_words.js';
import { proseText } from './pieces.js';
import { modeName, plural } from './words.js';

const WIDTH = 1600; // px that the tiles may take
const HEIGHT = 1000;
const MARGIN = { left: 64, top: 64, right: 20, bottom: 70 };
const LARGEST = 8192; // px of a PNG's side, which every browser can draw

/**
 * Options of both: `colour` ('confidence', 'order', 'entropy', 'regret'), `scheme` ('light', 'dark'; otherwise the
 * page's theme), `host` (an element inside a player, needed when there are several), `tile` {width, height} in px,
 * `title`. Tiles shrink until the map has 1600 × 1000 px.
 */
function compose(lane, options) {
  const data = dataOf(lane);
  const findings = findingsOf(lane);
  const wish = options.tile ?? { width: 40, height: 18 };
  const width = Math.min(wish.width, WIDTH / Math.max(1, data.columns));
  const height = Math.min(wish.height, HEIGHT / Math.max(1, data.rows));
  const fine = (size) => (size >= 2 ? Math.floor(size) : size);
  const tile = { width: fine(width), height: fine(height) };
  const inner = { width: Math.max(700, Math.ceil(data.columns * tile.width)), height: Math.ceil(data.rows * tile.height) };
  const size = { width: inner.width + MARGIN.left + MARGIN.right, height: inner.height + MARGIN.top + MARGIN.bottom };
  const asked = scaleOf(options.colour);
  const scale = asked.fits(data, findings) ? asked : scaleOf('confidence');
  const title = options.title ?? `${modeName(lane.mode)}: ${plural(data.columns, 'position')} by ${plural(data.rows, 'step')}`;
  return { data, findings, tile, inner, size, scale, title: proseText(title) };
}

function drawAll(pen, palette, { data, findings, tile, inner, size, scale, title }, unit) {
  const px = (value) => value * unit;
  pen.rect(0, 0, px(size.width), px(size.height), palette.surface);
  pen.text(px(16), px(28), title, palette.ink, { size: px(16), bold: true });
  const area = { x: px(MARGIN.left), y: px(MARGIN.top), width: px(inner.width), height: px(inner.height) };
  const place = (origin, step) => (unit === 1 && step < 1 ? (n) => origin + n * step : (n) => origin + Math.round(n * px(step)));
  const shared = { width: px(tile.width), height: px(tile.height), unit };
  const painter = new Painter({ data, findings, scale, palette });
  const plan = { ...shared, left: place(area.x, tile.width), top: place(area.y, tile.height) };
  painter.tiles(pen, plan, [0, data.columns], [0, data.rows]);
  painter.wrongs(pen, plan, [0, data.columns], [0, data.rows]);
  const within = { ...shared, left: place(0, tile.width), top: place(0, tile.height) };
  rulers(pen, { data, palette, plan: within, area, shift: { x: 0, y: 0 }, columns: [0, data.columns], rows: [0, data.rows] });
  key(pen, palette, { data, findings, scale, y: px(size.height - 52), unit });
  pen.text(px(MARGIN.left), px(MARGIN.top - 20), 'position of the answer', palette.muted, { size: px(11) });
  pen.text(px(16), px(MARGIN.top - 20), 'step', palette.muted, { size: px(11) });
}

/** The colour scale and the marks below the map. */
function key(pen, palette, { data, findings, scale, y, unit }) {
  const labels = scale.labels(data);
  const size = 11 * unit;
  pen.text(16 * unit, y + 10 * unit, scale.word(data), palette.muted, { size });
  scale.swatches.forEach((level, n) => {
    const x = (16 + 120 + n * 34) * unit;
    pen.rect(x, y, 32 * unit, 12 * unit, palette[`${scale.ramp}${level}`]);
    pen.text(x, y + 23 * unit, labels[n], palette.muted, { size });
  });
  let x = 16 * unit;
  for (const [name, words] of marksOf(data, findings)) {
    drawSwatch(pen, palette, name, x, y + 32 * unit, unit);
    pen.text(x + 21 * unit, y + 42 * unit, words, palette.muted, { size });
    x += (21 + 16 + words.length * 6) * unit;
  }
}

function withPalette(options, draw) {
  const host = options.host ?? document.querySelector('.ndp');
  const palette = new Palette(host, options.scheme ?? '');
  try {
    return draw(palette);
  } finally {
    palette.release();
  }
}

/** The map as the text of an SVG file. */
export function mapSvg(lane, options = {}) {
  const plan = compose(lane, options);
  return withPalette(options, (palette) => {
    const pen = new SvgPen(plan.size.width, plan.size.height, palette, mapSentence(plan.data, plan.findings, plan.data.rows - 1));
    drawAll(pen, palette, plan, 1);
    return pen.toString();
  });
}

/** The map as a PNG, a promise of a Blob; `options.scale` (2) is its pixels for a CSS pixel. */
export function mapPng(lane, options = {}) {
  const plan = compose(lane, options);
  const unit = Math.min(options.scale ?? 2, LARGEST / Math.max(plan.size.width, plan.size.height));
  const canvas = document.createElement('canvas');
  canvas.width = Math.round(plan.size.width * unit);
  canvas.height = Math.round(plan.size.height * unit);
  withPalette(options, (palette) => drawAll(new CanvasPen(canvas.getContext('2d'), palette, unit), palette, plan, unit));
  return new Promise((resolve, reject) => canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error('The picture is too large to be drawn here.'))), 'image/png'));
}
