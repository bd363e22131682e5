// Two pens with the same strokes: one draws on a canvas, one writes SVG. Coordinates are whole pixels of the
// drawing; text is data in both (fillText, textContent).

const SVG = 'http://www.w3.org/2000/svg';
const MONO = 'ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace';
const SANS = 'ui-sans-serif, system-ui, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif';
const PITCH = 6; // px between two lines of a hatch

/** Each pattern as strokes on a square of PITCH × PITCH: a mask is hatched, a draft is dotted. */
const PATTERNS = {
  hatch: { colour: 'hatch', path: `M-1 ${PITCH + 1}L${PITCH + 1} -1M-1 1L1 -1M${PITCH - 1} ${PITCH + 1}L${PITCH + 1} ${PITCH - 1}`, width: 1.4 },
  dots: { colour: 'phase-draft', path: 'M1 1.5h1.4M4 4.5h1.4', width: 1.4 },
  lines: { colour: 'bad', path: `M0 ${PITCH / 2}h${PITCH}`, width: 1.2 },
};

export class CanvasPen {
  /** `scale`: pixels of the canvas for each CSS pixel. */
  constructor(context, palette, scale) {
    Object.assign(this, { context, palette, scale });
    this.patterns = new Map();
  }

  rect(x, y, width, height, colour, opacity = 1) {
    const { context } = this;
    context.globalAlpha = opacity;
    context.fillStyle = colour;
    context.fillRect(x, y, width, height);
    context.globalAlpha = 1;
  }

  pattern(x, y, width, height, name) {
    this.context.fillStyle = this.patternOf(name);
    this.context.fillRect(x, y, width, height);
  }

  patternOf(name) {
    if (this.patterns.has(name)) return this.patterns.get(name);
    const { colour, path, width } = PATTERNS[name];
    const tile = document.createElement('canvas');
    tile.width = tile.height = Math.round(PITCH * this.scale);
    const pen = tile.getContext('2d');
    pen.scale(tile.width / PITCH, tile.width / PITCH);
    pen.strokeStyle = this.palette[colour];
    pen.lineWidth = width;
    pen.stroke(new Path2D(path));
    this.patterns.set(name, this.context.createPattern(tile, 'repeat'));
    return this.patterns.get(name);
  }

  frame(x, y, width, height, colour, thick, dash = null) {
    const { context } = this;
    context.strokeStyle = colour;
    context.lineWidth = thick;
    if (dash) context.setLineDash(dash);
    context.strokeRect(x + thick / 2, y + thick / 2, width - thick, height - thick);
    if (dash) context.setLineDash([]);
  }

  /** A closed shape through `points` [x, y, x, y, …], with an outline where `edge` is given. */
  shape(points, colour, edge = null, thick = 1) {
    const { context } = this;
    context.beginPath();
    for (let i = 0; i < points.length; i += 2) context.lineTo(points[i], points[i + 1]);
    context.closePath();
    if (edge) {
      context.strokeStyle = edge;
      context.lineWidth = thick;
      context.lineJoin = 'round';
      context.stroke();
    }
    if (colour) {
      context.fillStyle = colour;
      context.fill();
    }
  }

  line(points, colour, thick) {
    const { context } = this;
    context.beginPath();
    for (let i = 0; i < points.length; i += 2) context.lineTo(points[i], points[i + 1]);
    context.strokeStyle = colour;
    context.lineWidth = thick;
    context.stroke();
  }

  text(x, y, text, colour, { size, anchor = 'start', mono = false, bold = false, opacity = 1 }) {
    const { context } = this;
    context.font = `${bold ? 650 : 400} ${size}px ${mono ? MONO : SANS}`;
    context.textAlign = anchor === 'middle' ? 'center' : anchor;
    context.textBaseline = 'alphabetic';
    context.globalAlpha = opacity;
    context.fillStyle = colour;
    context.fillText(text, x, y);
    context.globalAlpha = 1;
  }

  /** Draw inside a rectangle only. */
  within(x, y, width, height, draw) {
    this.context.save();
    this.context.beginPath();
    this.context.rect(x, y, width, height);
    this.context.clip();
    draw();
    this.context.restore();
  }
}

export class SvgPen {
  constructor(width, height, palette, title) {
    Object.assign(this, { palette, scale: 1 });
    this.root = node('svg', { xmlns: SVG, viewBox: `0 0 ${width} ${height}`, width, height, role: 'img' });
    const name = node('title');
    name.textContent = title;
    this.definitions = node('defs');
    this.root.append(name, this.definitions);
    this.target = this.root;
    this.clips = 0;
    for (const [id, { colour, path, width: thick }] of Object.entries(PATTERNS)) {
      const pattern = node('pattern', { id: `nd-${id}`, width: PITCH, height: PITCH, patternUnits: 'userSpaceOnUse' });
      pattern.append(node('path', { d: path, stroke: palette[colour], 'stroke-width': thick, fill: 'none' }));
      this.definitions.append(pattern);
    }
  }

  put(tag, attributes) {
    this.target.append(node(tag, attributes));
  }

  rect(x, y, width, height, colour, opacity = 1) {
    this.put('rect', { x, y, width, height, fill: colour, opacity: opacity === 1 ? null : opacity });
  }

  pattern(x, y, width, height, name) {
    this.put('rect', { x, y, width, height, fill: `url(#nd-${name})` });
  }

  frame(x, y, width, height, colour, thick, dash = null) {
    const inner = { x: x + thick / 2, y: y + thick / 2, width: Math.max(0, width - thick), height: Math.max(0, height - thick) };
    this.put('rect', { ...inner, fill: 'none', stroke: colour, 'stroke-width': thick, 'stroke-dasharray': dash?.join(' ') ?? null });
  }

  shape(points, colour, edge = null, thick = 1) {
    this.put('polygon', { points: points.join(' '), fill: colour ?? 'none', stroke: edge, 'stroke-width': edge ? thick : null, 'paint-order': edge ? 'stroke' : null });
  }

  line(points, colour, thick) {
    this.put('polyline', { points: points.join(' '), fill: 'none', stroke: colour, 'stroke-width': thick });
  }

  text(x, y, text, colour, { size, anchor = 'start', mono = false, bold = false, opacity = 1 }) {
    const written = node('text', { x, y, fill: colour, 'font-size': size, 'font-family': mono ? MONO : SANS, 'text-anchor': anchor, 'font-weight': bold ? 650 : null, opacity: opacity === 1 ? null : opacity });
    written.textContent = text;
    this.target.append(written);
  }

  within(x, y, width, height, draw) {
    this.clips += 1;
    const clip = node('clipPath', { id: `nd-clip${this.clips}` });
    clip.append(node('rect', { x, y, width, height }));
    this.definitions.append(clip);
    const outer = this.target;
    this.target = node('g', { 'clip-path': `url(#nd-clip${this.clips})` });
    outer.append(this.target);
    draw();
    this.target = outer;
  }

  toString() {
    return new XMLSerializer().serializeToString(this.root);
  }
}

function node(tag, attributes = {}) {
  const made = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) if (value !== null && value !== undefined && key !== 'xmlns') made.setAttribute(key, value);
  return made;
}
