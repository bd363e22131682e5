// Text with gaps and marks, without any page: what the editor computes. A gap is written as the model's templates
// have it (nemodiff_core/skeleton.py): ▢ once a token, ▢{3} or ▢{1,4}. A mark is a range of characters with
// something known about it: what stood in a gap, or that a word is pinned.

export const GAP = '▢';
const GAPS = /▢\{(\d+)(?:,(\d+))?\}|▢+(?!\{\d)/gu;
const WORDS = /[\p{L}\p{N}_'’-]+|[^\s\p{L}\p{N}_▢]+/gu;
export const LONGEST = 63; // of any block

/** The gaps of a text: {start, end, shortest, longest, was}; `was` from the marks, undefined where nothing is known. */
export function gapsIn(text, marks = []) {
  return [...text.matchAll(GAPS)].map((match) => {
    const shortest = match[1] ? Number(match[1]) : match[0].length;
    const start = match.index;
    const was = marks.find((mark) => mark.start === start)?.was;
    return { start, end: start + match[0].length, shortest, longest: match[2] ? Number(match[2]) : shortest, was };
  });
}

/** How a gap is written. */
export function gapText(shortest, longest) {
  if (shortest !== longest) return `${GAP}{${shortest},${longest}}`;
  return longest === 1 ? GAP : `${GAP}{${longest}}`;
}

/** The words of a text as ranges. */
export function wordsIn(text) {
  return [...text.matchAll(WORDS)].map((match) => ({ start: match.index, end: match.index + match[0].length }));
}

/** Replace [start, end) and move the marks along; those it touches go. */
export function replaced({ text, marks }, start, end, inserted) {
  const by = inserted.length - (end - start);
  const kept = marks.filter((m) => m.end <= start || m.start >= end).map((m) => (m.start >= end ? { ...m, start: m.start + by, end: m.end + by } : m));
  return { text: text.slice(0, start) + inserted + text.slice(end), marks: kept };
}

/** The marks after somebody typed: found by what the two texts have in common at both ends. */
export function typed({ text, marks }, after) {
  const most = Math.min(text.length, after.length);
  let same = 0;
  while (same < most && text[same] === after[same]) same += 1;
  let tail = 0;
  while (tail < most - same && text[text.length - 1 - tail] === after[after.length - 1 - tail]) tail += 1;
  const next = replaced({ text, marks }, same, text.length - tail, after.slice(same, after.length - tail));
  // A gap whose length is being edited is still the same gap, also while what stands there is none yet: ▢{1,}
  for (const old of marks) {
    if (old.was === undefined || old.start >= same || old.end <= same || after[old.start] !== GAP) continue;
    if (!next.marks.some((mark) => mark.start === old.start)) next.marks.push({ ...old, end: old.start + 1 });
  }
  return { text: after, marks: next.marks };
}

/** Turn [start, end) into a gap of `length` tokens; gaps that it reaches or touches become part of it. */
export function masked(doc, start, end, shortest, longest) {
  let [low, high] = [start, end];
  for (const gap of gapsIn(doc.text)) {
    if (gap.end < low || gap.start > high) continue;
    low = Math.min(low, gap.start);
    high = Math.max(high, gap.end);
  }
  const was = plain({ text: doc.text, marks: doc.marks }, low, high);
  const written = gapText(shortest, longest);
  const next = replaced(doc, low, high, written);
  return { text: next.text, marks: [...next.marks, { start: low, end: low + written.length, was }] };
}

/** The text of [start, end) with gaps as what stood in them. */
export function plain({ text, marks }, start = 0, end = text.length) {
  let out = '';
  let at = start;
  for (const gap of gapsIn(text, marks)) {
    if (gap.end <= start || gap.start >= end) continue;
    out += text.slice(at, gap.start) + (gap.was ?? '');
    at = gap.end;
  }
  return out + text.slice(at, Math.max(at, end));
}

/** Give a gap another length. */
export function resized(doc, gap, shortest, longest) {
  const top = Math.max(1, Math.min(LONGEST, longest));
  const written = gapText(Math.max(1, Math.min(shortest, top)), top);
  const next = replaced(doc, gap.start, gap.end, written);
  if (gap.was !== undefined) next.marks.push({ start: gap.start, end: gap.start + written.length, was: gap.was });
  return next;
}

/** A gap becomes what stood there. */
export function unmasked(doc, gap) {
  return replaced(doc, gap.start, gap.end, gap.was ?? '');
}

/** The words in or at [start, end) become pinned, or free where all of them were pinned. */
export function pinned({ text, marks }, start, end) {
  const chosen = wordsIn(text).filter((word) => (start === end ? word.start <= start && word.end >= end : word.start < end && word.end > start));
  const words = start === end ? chosen.slice(-1) : chosen;
  const holds = (word) => marks.some((mark) => mark.start < word.end && mark.end > word.start);
  const kept = marks.filter((mark) => !words.some((word) => mark.start < word.end && mark.end > word.start));
  return { text, marks: words.every(holds) ? kept : [...kept, ...words], words };
}

/** The start of a range without the white space at its ends. */
export function trimmed(text, start, end) {
  let [low, high] = [start, end];
  while (low < high && /\s/.test(text[low])) low += 1;
  while (high > low && /\s/.test(text[high - 1])) high -= 1;
  return [low, high];
}

/**
 * A proposal with some of its changes taken: {text, marks}. The marks are the draft's pins where they now stand,
 * and the changes that were refused.
 */
export function merged(parts, decisions, pins) {
  const marks = [];
  let [text, from, hunk] = ['', 0, 0];
  for (const part of parts) {
    const before = part.text ?? part.before;
    const decision = part.text === undefined ? decisions[hunk++] : null;
    const written = decision === true ? part.after : before;
    if (decision === false && before.trim()) {
      const [low, high] = trimmed(before, 0, before.length);
      marks.push({ start: text.length + low, end: text.length + high });
    } else if (decision !== true) {
      for (const pin of pins) {
        if (pin.start >= from && pin.start < from + before.length) marks.push({ start: pin.start - from + text.length, end: Math.min(pin.end - from, before.length) + text.length });
      }
    }
    text += written;
    from += before.length;
  }
  return { text, marks };
}
