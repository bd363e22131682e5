// The moments a replay can stand at. With one lane a moment is a step. With several lanes on one clock a
// moment is any instant at which some lane finished a forward; per forward it is a shared count.

/** Moments of one lane: moment i stands after step i - 1. */
function single(lane) {
  return {
    length: lane.steps.length + 1,
    time: (i) => lane.timeAt(i - 1),
    steps: (i) => [i - 1],
    byTime: false,
  };
}

/** Moments of several lanes that advance one forward each per tick. */
function perForward(lanes) {
  const length = 1 + Math.max(0, ...lanes.map((lane) => lane.steps.length));
  return {
    length,
    time: (i) => Math.max(...lanes.map((lane) => lane.timeAt(i - 1))),
    steps: (i) => lanes.map((lane) => Math.min(i, lane.steps.length) - 1),
    byTime: false,
  };
}

/** Moments of several lanes on the measured clock: each began its run at zero. */
function onClock(lanes) {
  const all = new Set([0]);
  for (const lane of lanes) for (const step of lane.steps) all.add(step.elapsed_ns);
  const times = Float64Array.from(all).sort();
  const elapsed = lanes.map((lane) => lane.steps.map((step) => step.elapsed_ns));
  return {
    length: times.length,
    time: (i) => times[Math.max(0, Math.min(i, times.length - 1))],
    steps: (i) => elapsed.map((list) => countUpTo(list, times[i]) - 1),
    byTime: true,
  };
}

const EMPTY = { length: 1, time: () => 0, steps: () => [], byTime: false };

export function buildTrack(lanes, countsForwards) {
  if (!lanes.length) return EMPTY;
  if (lanes.length === 1) return single(lanes[0]);
  return countsForwards ? perForward(lanes) : onClock(lanes);
}

/** How many entries of an ascending list are at most `limit`. */
export function countUpTo(list, limit) {
  let low = 0;
  let high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle] <= limit) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The last moment of `track` that lies at or before `time` nanoseconds. */
export function momentAt(track, time) {
  let low = 0;
  let high = track.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (track.time(middle) <= time) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** Where moment `i` stands on the scrubber: microseconds on the clock, otherwise the moment itself. */
export function scaleValue(track, i) {
  return track.byTime ? Math.floor(track.time(i) / 1000) : i;
}

/** The moment at a value of the scrubber. */
export function momentOf(track, value) {
  return track.byTime ? momentAt(track, value * 1000 + 999) : Math.round(value);
}

/** A function (lane, step index) → fraction of the scrubber's width at which the step ends. */
export function placeOnScale(track) {
  const whole = Math.max(1, scaleValue(track, track.length - 1));
  return track.byTime ? (lane, i) => lane.timeAt(i) / 1000 / whole : (lane, i) => (i + 1) / whole;
}
