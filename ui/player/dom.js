// Small helpers for building elements. Text only ever enters through textContent: there is no way to
// hand markup to these functions.

/** An element with a class, attributes and children. Keys starting with `on` are event listeners. */
export function el(tag, className = '', attributes = {}, ...children) {
  return furnish(document.createElement(tag), className, attributes, children);
}

/** What `el` does to an element that is already there; returns it. */
export function furnish(node, className, attributes, children) {
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

/** Set the text of a node, but only when it differs: an untouched node costs no layout. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Set or remove an attribute, but only when it differs. */
export function setAttr(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== String(value)) {
    node.setAttribute(name, String(value));
  }
}

/** Whether the visitor asked their system for less motion. Asked anew each time: it can change. */
export function prefersStillness() {
  return window.matchMedia('(prefers-reduced-motion: reduce)').matches;
}
