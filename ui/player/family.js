// Which run came from which: what-ifs and revisions make child traces, and none replaces its parent. Kept for
// as long as the page is open, by trace id; runs that the server has let go of stay named but cannot be opened.

export class Family {
  constructor() {
    this.nodes = new Map(); // trace id → {id, run, lane, parent, step, label, mode, tokens}
  }

  /** Take note of the lanes of a run. */
  note(run, lanes) {
    for (const [number, lane] of lanes.entries()) {
      if (!lane?.head.id) continue;
      const known = this.nodes.get(lane.head.id);
      // A run of its own is the better place to open a trace at than a copy beside its child.
      if (known && known.run !== run && known.lane <= number) continue;
      const parent = lane.head.parent ?? null;
      this.nodes.set(lane.head.id, {
        id: lane.head.id,
        run: known?.run ?? run,
        lane: known?.lane ?? number,
        parent: parent?.trace ?? null,
        step: parent?.step ?? null,
        label: parent?.label ?? null,
        mode: lane.mode,
      });
    }
  }

  /** The tree that holds a trace: its oldest known ancestor and all that came of it, as rows with their depth. */
  tree(id) {
    let root = id;
    for (let node = this.nodes.get(id); node?.parent && this.nodes.has(node.parent); node = this.nodes.get(root)) root = node.parent;
    const rows = [];
    const visit = (key, depth) => {
      rows.push({ ...this.nodes.get(key), depth });
      for (const node of this.nodes.values()) if (node.parent === key) visit(node.id, depth + 1);
    };
    if (this.nodes.has(root)) visit(root, 0);
    return rows;
  }
}
