// Confidence as one of eight levels. The bounds crowd near 1 because that is where a trained model's
// confidences are, and where commit thresholds lie. The colours themselves are in player.css
// (--nd-c0 … --nd-c7 with text --nd-t0 … --nd-t7): luminance falls evenly from sure to unsure, and the
// hue runs from blue to orange, which every common form of colour blindness tells apart.

export const BOUNDS = [0.25, 0.4, 0.55, 0.7, 0.8, 0.9, 0.97];

/** 0 (unsure) … 7 (sure), or -1 where no confidence was recorded. */
export function level(confidence) {
  if (!Number.isFinite(confidence)) return -1;
  let index = 0;
  while (index < BOUNDS.length && confidence >= BOUNDS[index]) index += 1;
  return index;
}
