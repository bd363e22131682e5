// What the player shows, readable from outside: `window.__nemodiff.players[id]`. Lessons and the browser tests
// use it. Values are computed when read.

export function publish(player) {
  const { id } = player.options;
  if (!id) return;
  const shown = (lane, number) => player.stepsShown[number] ?? -1;
  const lanes = () =>
    player.store.lanes.map((lane, number) => ({
      mode: lane.mode,
      step: shown(lane, number),
      steps: lane.steps.length,
      output: lane.output(shown(lane, number)),
      text: lane.text(lane.output(shown(lane, number))),
      metrics: lane.metrics,
      ended: lane.ended,
      done: lane.ended && shown(lane, number) >= lane.last,
    }));
  const values = {
    view: () => (player.race ? 'race' : 'refine'),
    run: () => player.store.run,
    seq: () => player.store.seq,
    step: () => player.index - 1,
    steps: () => player.track.length - 1,
    output: () => lanes().find(Boolean)?.output ?? [],
    text: () => lanes().find(Boolean)?.text ?? '',
    playing: () => player.clock.playing,
    following: () => player.following,
    live: () => player.store.live && !player.store.complete,
    complete: () => player.store.complete,
    speed: () => player.clock.speed.id,
    pinned: () => player.focus.pinned,
    panel: () => player.dock.open,
    selection: () => player.selection,
    lanes,
    identical: () => player.opened.map((lane) => lane.tail?.identical ?? null).find((verdict) => verdict !== null) ?? null,
    fault: () => player.store.fault,
  };
  const view = {};
  for (const [name, get] of Object.entries(values)) Object.defineProperty(view, name, { get, enumerable: true });
  window.__nemodiff ??= { players: {} };
  window.__nemodiff.players[id] = view;
  player.published = view;
}

export function withdraw(player) {
  const players = window.__nemodiff?.players;
  if (players && players[player.options.id] === player.published) delete players[player.options.id];
}
