// What is drawn over the picture of the map in every frame: the playhead and what is looked at.

/** `what`: {view, area, palette, columns, rows, step, pinned, passing: columns or null, hover, cursor: tiles or null}. */
export function highlight(pen, what) {
  const { view, area, palette } = what;
  const { unit, plan } = view;
  const x = (column) => area.x + plan.left(column) - view.x;
  const y = (row) => area.y + plan.top(row) - view.y;
  const right = Math.min(area.x + area.width, x(what.columns));
  const end = y(what.rows);
  playhead(pen, { x: area.x, y: y(what.step + 1), right, end }, palette, unit);
  if (what.pinned !== null) pin(pen, { left: x(what.pinned), right: x(what.pinned + 1), top: area.y, end }, palette, unit);
  if (what.passing !== null && what.passing !== what.pinned) {
    const left = x(what.passing);
    pen.rect(left, area.y, Math.max(unit, x(what.passing + 1) - left), end - area.y, palette.accent, 0.18);
  }
  const boxed = (tile, colour) => {
    const [left, top] = [x(tile.column) - 2 * unit, y(tile.row) - 2 * unit];
    const [width, height] = [x(tile.column + 1) - left + unit, y(tile.row + 1) - top + unit];
    pen.frame(left - unit, top - unit, width + 2 * unit, height + 2 * unit, palette.surface, unit);
    pen.frame(left, top, width, height, colour, 2 * unit);
  };
  if (what.hover) boxed(what.hover, palette.ink);
  if (what.cursor) boxed(what.cursor, palette.accent);
}

/** A line below the step shown; what is yet to come is paler. */
function playhead(pen, { x, y, right, end }, palette, unit) {
  if (y < end) pen.rect(x, y, right - x, end - y, palette.surface, 0.5);
  const thick = Math.max(2, Math.round(2 * unit));
  pen.rect(x, y - Math.round(thick / 2), right - x, thick, palette.accent);
  pen.shape([x, y - 5 * unit, x + 6 * unit, y, x, y + 5 * unit], palette.accent, palette.surface, unit);
}

function pin(pen, { left, right, top, end }, palette, unit) {
  pen.rect(left - 2 * unit, top, 2 * unit, end - top, palette.accent);
  pen.rect(right, top, 2 * unit, end - top, palette.accent);
  const middle = (left + right) / 2;
  pen.shape([middle - 5 * unit, top, middle + 5 * unit, top, middle, top + 6 * unit], palette.accent, palette.surface, unit);
}
