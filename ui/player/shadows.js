// Which committed cells a denoising forward looks at a second time. The decoder judges such a cell by a shadow:
// one more mask at the cell's position, run in the same forward (nemodiff_core/decode/denoise.py). Traces record
// what came of it, not who was judged, so the decoder's bookkeeping is repeated here.

/** Follows the blocks of one run; feed it every step in order. */
export class Shadows {
  constructor(mode, request, promptLength) {
    this.mode = mode;
    this.request = request;
    this.end = promptLength + (request.max_new_tokens ?? 0);
    this.size = request.block_length ?? 1;
    this.left = request.max_forwards ?? null; // of the whole answer
    this.block = null;
  }

  /** Positions that the forward of `step` judges, ascending; null where the trace does not tell. */
  next(step) {
    if (!Number.isFinite(this.request.remask_bound ?? NaN)) return [];
    if (step.phase === 'prefill' || (this.mode === 'infill' && step.phase === 'commit')) return [];
    // The forwards that try a length of a gap are recorded without their events.
    if (step.phase === 'verify') return step.scores?.length ? [] : null;
    if (this.block?.number !== step.block) this.begin(step);
    return step.phase === 'commit' ? this.judge(step) : this.fill(step);
  }

  begin(step) {
    const [start, end] = step.span;
    const pinned = step.events.filter((event) => event.kind === 'pin').map((event) => event.position);
    const text = this.mode === 'refine' ? Array.from({ length: end - start }, (_, i) => start + i) : [];
    const seed = this.mode === 'infill' ? [] : [start];
    const limit = this.limit(start);
    this.block = {
      number: step.block,
      known: new Set([...seed, ...text, ...pinned]),
      fixed: new Set([...seed, ...pinned]),
      reopened: new Set(),
      forwards: 0,
      limit,
      round: { count: 0, limit },
    };
  }

  /** How many denoising forwards a block may have; null: as many as it needs. */
  limit(start) {
    const caps = [];
    if (Number.isFinite(this.request.max_forwards_per_block ?? NaN)) caps.push(this.request.max_forwards_per_block);
    if (this.left !== null) {
      const blocks = Math.ceil((this.end - start) / this.size);
      caps.push(Math.max(Math.floor(this.left / blocks) - 1, 1));
    }
    return caps.length ? Math.min(...caps) : null;
  }

  fill(step) {
    const { known, fixed, reopened, round } = this.block;
    const reopens = round.limit === null || round.count + 1 < round.limit;
    const judged = reopens ? [...known].filter((p) => !fixed.has(p) && !reopened.has(p)).sort((a, b) => a - b) : [];
    for (const event of step.events) {
      if (event.kind === 'commit') known.add(event.position);
      if (event.kind === 'remask') {
        known.delete(event.position);
        reopened.add(event.position);
      }
    }
    round.count += 1;
    this.block.forwards += 1;
    return judged;
  }

  /** A causal pass over the block: it ends the block, or reopens cells for another round. */
  judge(step) {
    const { block } = this;
    if (doubts(step)) {
      for (const event of step.events) if (event.kind === 'remask') block.known.delete(event.position);
      if (this.left !== null) block.forwards += 1;
      block.round = { count: 0, limit: block.limit === null ? null : block.limit - block.forwards };
    } else if (this.left !== null) this.left -= block.forwards + 1;
    return [];
  }
}

/** Whether a causal pass over a block doubted some of its cells, so that they are written again. */
export function doubts(step) {
  const [start, end] = step.span;
  return step.events.some(({ kind, position }) => kind === 'remask' || (kind === 'seed' && position > start && position < end));
}
