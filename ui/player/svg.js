// Building SVG. As in dom.js, text only ever enters through textContent.

const SVG = 'http://www.w3.org/2000/svg';

/** An SVG element with a class, attributes and children; keys starting with `on` are event listeners. */
export function svg(tag, className = '', attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  if (className) node.setAttribute('class', className);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith('on')) node.addEventListener(key.slice(2), value);
    else if (key === 'text') node.textContent = value;
    else node.setAttribute(key, value === true ? '' : String(value));
  }
  node.append(...children);
  return node;
}

/** Path data of a rectangle, rounded to a hundredth of a pixel. */
export function box(x, y, width, height) {
  const r = (value) => Math.round(value * 100) / 100;
  return `M${r(x)} ${r(y)}h${r(width)}v${r(height)}h${r(-width)}z`;
}
