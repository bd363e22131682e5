// Building SVG. As in dom.js, text only ever enters through textContent.

import { furnish } from './dom.js';

const SVG = 'http://www.w3.org/2000/svg';

/** An SVG element with a class, attributes and children; keys starting with `on` are event listeners. */
export function svg(tag, className = '', attributes = {}, ...children) {
  return furnish(document.createElementNS(SVG, tag), className, attributes, children);
}

/** An icon drawn from one path on a 16 × 16 grid. */
export function icon(path) {
  return svg('svg', '', { viewBox: '0 0 16 16', 'aria-hidden': 'true', focusable: 'false' }, svg('path', '', { d: path }));
}

/** Path data of a rectangle, rounded to a hundredth of a pixel. */
export function box(x, y, width, height) {
  const r = (value) => Math.round(value * 100) / 100;
  return `M${r(x)} ${r(y)}h${r(width)}v${r(height)}h${r(-width)}z`;
}
