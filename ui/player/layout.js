// Which positions are in view, and how many cells fit a line. Widths depend on the block length and the
// room alone, never on the text, so nothing moves while a block resolves.

const WORKING = new Set(['denoise', 'draft', 'verify', 'revise', 'commit']);
const AR_PAGE = 16;
const ROOMY = 76; // px a cell should have; most pieces fit it
const TIGHT = 56; // px at which a cell is still readable: for long blocks and small screens
const SMALL_SCREEN = 480;

/**
 * The span shown after `step`: the block being worked on, or, token by token, a page of sixteen.
 * `extra` counts cells behind the block: where its bonus or the next block's seed lands.
 */
export function visibleSpan(lane, step, previous) {
  const size = Math.max(1, lane.request.block_length ?? AR_PAGE);
  if (lane.mode === 'ar' || lane.mode === 'remote') {
    // Many tokens may come in one chunk: the last of them are in view.
    const position = step?.events?.at(-1)?.position ?? lane.start;
    const page = Math.max(0, Math.floor((position - lane.start) / AR_PAGE));
    const start = lane.start + page * AR_PAGE;
    if (previous && previous.start === start) return previous;
    return { start, end: start + AR_PAGE, extra: 0, number: page };
  }
  if (!step) return { start: lane.start, end: lane.start + size, extra: 1, number: 0 };
  if (!WORKING.has(step.phase)) return previous;
  const [start, end] = step.span;
  // A commit pass may run over fewer cells than the block has; the block stays in view as a whole.
  if (previous && previous.start === start && end <= previous.end) return previous;
  return { start, end, extra: 1, number: step.block };
}

/** Columns for `cells` cells in `width` px: even rows where that costs little room. */
export function columns(cells, width, gap) {
  const wish = cells > 32 || width < SMALL_SCREEN ? TIGHT : ROOMY;
  const most = Math.max(2, Math.min(cells, Math.floor((width + gap) / (wish + gap))));
  const rows = Math.ceil(cells / most);
  const even = Math.ceil(cells / rows);
  for (let n = most; n >= most * 0.6; n -= 1) if (cells % n === 0) return n;
  return even;
}

/** Font size in px at which `length` monospaced characters fit `width` px, within what is readable. */
export function fitFont(length, width, largest = 14, smallest = 10) {
  const perCharacter = 0.61;
  return Math.max(smallest, Math.min(largest, width / (Math.max(1, length) * perCharacter)));
}
