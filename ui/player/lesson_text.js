// From a lesson's tree (ui/lessons/markup.py) to elements. Only the tags and attributes named here exist, and
// text is only ever text: nothing in a lesson or a trace can become markup.

const MATHML = 'http://www.w3.org/1998/Math/MathML';
const HTML_TAGS = new Set(['p', 'ul', 'li', 'em', 'strong', 'code']);
const MATH_TAGS = new Set('math mrow mi mo mn mtext mspace msub msup msubsup munder mover munderover mfrac msqrt mstyle mtable mtr mtd'.split(' '));
const ATTRIBUTES = new Set(['display', 'stretchy', 'width', 'mathvariant', 'movablelimits', 'form']);

/** The DOM nodes of a list of tree nodes. */
export function nodes(tree) {
  return (tree ?? []).map(node).filter((made) => made !== null);
}

function node(tree) {
  if (typeof tree === 'string') return document.createTextNode(tree);
  const [tag, attributes, children] = tree;
  const math = MATH_TAGS.has(tag);
  if (!math && !HTML_TAGS.has(tag)) return null;
  const made = math ? document.createElementNS(MATHML, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) if (math && ATTRIBUTES.has(name)) made.setAttribute(name, String(value));
  made.append(...nodes(children));
  return made;
}
