// A forward in plain words: what it reads, what it sees, what stays of it.

import { placeInGroup, positionOf, sees } from './forwards.js';
import { plural } from './words.js';

const cells = (n) => plural(n, 'cell');
const reads = ({ prefix }) => (prefix ? `reads ${plural(prefix, 'cached position')}` : 'starts with an empty cache');
const stay = (n) => (n === 1 ? 'it is written to the cache and stays' : `all ${n} are written to the cache and stay`);
const GONE = 'nothing it computes is kept';

/** One sentence, or two, for the forward of a step. */
export function forwardSentence(forward, { adapter = false } = {}) {
  const { phase, purpose, chain, before, prefix } = forward;
  const open = `This ${phase} forward ${reads(forward)}`;
  const again = before > prefix ? `, takes the ${before - prefix === 1 ? 'token' : `${before - prefix} tokens`} before the gap out of the cache` : '';
  switch (purpose) {
    case 'prefill':
      return forward.groups ? drafting(forward) : `This prefill forward reads the ${plural(chain, 'token')} of the prompt, each looking at itself and at what stands before it; ${stay(chain)}.`;
    case 'ar':
      return `${open} and one new token, whose keys and values are added to them; its logits choose the next one.`;
    case 'verify':
      return forward.groups ? quadratic(forward, open) : `${open} and the ${cells(chain)} of the block, each looking only at itself and what stands before it. ${verdict(forward)}`;
    case 'commit':
      return `${open} and the ${plural(chain, 'finished cell')} of the block once more, now each looking only back; ${stay(chain)}.`;
    case 'doubt':
      return `${open} and the ${plural(chain, 'finished cell')} of the block, each looking only back. It doubts some of them, so what it wrote is cropped and the block is opened again.`;
    case 'given':
      return `${open} and ${plural(chain, 'given token')}, each looking only back; ${stay(chain)}.`;
    case 'gap':
      return `${open}, the token before the gap and the ${plural(chain - 1, 'cell')} that filled it, each looking only back; ${stay(chain)}.`;
    case 'score':
      return `${open} and a tried filling with the text behind it, each cell looking only back, to score this length of the gap; ${GONE}.`;
    case 'try':
      return `${open}${again} and looks at all ${cells(chain)} of the block in both directions, to try one length of the gap; ${GONE}.`;
    case 'fill':
      return `${open}${again} and looks at all ${cells(chain)} of the block in both directions, the text behind the gap among them; ${GONE}.${shadows(forward)}`;
    case 'draft':
      return `${open} and looks at all ${cells(chain)} of the block in both directions${adapter ? ', with the draft adapter on' : ''}; ${GONE}.`;
    default:
      return `${open} and looks at all ${cells(chain)} of the block in both directions; ${GONE}.${shadows(forward)}`;
  }
}

function shadows({ shadows: judged }) {
  if (judged === null) return ' Committed cells may have been judged by shadows in it; the trace does not tell how many.';
  if (!judged.length) return '';
  return ` It carries ${plural(judged.length, 'shadow')}: ${judged.length === 1 ? 'a mask that stands' : 'masks that stand'} where a committed cell is and cannot see that cell, so that it can be doubted.`;
}

function verdict({ written, kept }) {
  const cropped = written - kept;
  return cropped ? `All ${written} are written; then the last ${cropped} ${cropped === 1 ? 'is' : 'are'} cropped, because they are not part of the text, and ${kept} ${kept === 1 ? 'stays' : 'stay'}.` : `All ${written} are written and stay.`;
}

function drafting({ chain, group }) {
  return `This prefill forward reads the ${plural(chain, 'token')} of the prompt causally and, behind the last of them, ${plural(group, 'mask')} that see the prompt and one another: the first draft. The prompt is kept, the masks’ keys and values are thrown away.`;
}

function quadratic(forward, open) {
  const { chain, groups, group } = forward;
  const drafts = chain === 1 ? 'the pending token' : `the pending token and its ${plural(chain - 1, 'draft')} causally`;
  return `${open}, ${drafts}, and behind each of them ${plural(group, 'mask')} that already draft what follows: ${groups * group} masks, all thrown away. ${verdict(forward)}`;
}

/** What one query sees, in a sentence; `name(index)` says what stands at an input. */
export function querySentence(forward, query, name) {
  const { prefix, chain, group } = forward;
  const position = positionOf(forward, query);
  const cached = prefix ? `${plural(prefix, 'cached position')} and ` : '';
  const who = `Position ${position}, ${name(query)},`;
  if (query < chain) {
    const [[low, high]] = sees(forward, query);
    if (forward.pattern === 'bidirectional') return `${who} sees ${cached}all ${cells(chain)} of the block, before and behind it.`;
    return high - low === 1 ? `${who} sees ${cached}itself.` : `${who} sees ${cached}${high - low} of the ${plural(chain, 'input')}: itself and the ${high - low - 1} before it.`;
  }
  if (!group) return `A shadow at position ${position} sees ${cached}the ${cells(chain - 1)} of the block beside its own, and itself.`;
  const { opener, depth } = placeInGroup(forward, query);
  const behind = `Mask ${depth} behind position ${positionOf(forward, opener)}, ${name(opener)}, sees ${prefix ? `${plural(prefix, 'cached position')}, ` : ''}`;
  return `${behind}${opener + 1 === 1 ? 'that token' : `the ${opener + 1} tokens up to that one`} and the ${plural(group, 'mask')} of its own group.`;
}

/** What became of a position, for the strip. */
export function fateSentence({ position, written, kept, discarded }) {
  const times = discarded > 1 ? ` (${discarded} times)` : '';
  if (kept) return `position ${position}: written to the cache and kept${discarded ? `; also computed as a mask${times} and thrown away` : ''}`;
  if (written) return `position ${position}: written, then cropped${discarded ? `; also computed as a mask${times} and thrown away` : ''}`;
  return `position ${position}: computed${times} and thrown away after this step`;
}
