// Mouse, pen and fingers on the map: point, click, drag, pinch, and the wheel with Ctrl.

const CLICK_PX = 5; // a pointer that moved less has clicked

export class Pointing {
  /** `map` offers tileAt, point, choose, pan and zoom; coordinates are CSS px of the canvas. */
  constructor(canvas, map) {
    this.canvas = canvas;
    this.map = map;
    this.down = new Map(); // pointer id -> {x, y}
    canvas.addEventListener('pointerdown', (event) => this.press(event));
    canvas.addEventListener('pointermove', (event) => this.move(event));
    canvas.addEventListener('pointerup', (event) => this.lift(event));
    canvas.addEventListener('pointercancel', (event) => this.lift(event, true));
    canvas.addEventListener('pointerleave', () => this.down.size || map.point(null));
    canvas.addEventListener('wheel', (event) => this.wheel(event), { passive: false });
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  press(event) {
    if (event.button !== 0) return;
    this.down.set(event.pointerId, this.at(event));
    this.canvas.setPointerCapture(event.pointerId);
    this.travelled = this.down.size > 1 ? Infinity : 0;
  }

  move(event) {
    const now = this.at(event);
    const before = this.down.get(event.pointerId);
    if (!before) {
      if (event.pointerType === 'mouse') this.map.point(this.map.tileAt(now.x, now.y));
      return;
    }
    const other = [...this.down].find(([id]) => id !== event.pointerId)?.[1];
    const [dx, dy] = [now.x - before.x, now.y - before.y];
    this.travelled += Math.hypot(dx, dy);
    this.down.set(event.pointerId, now);
    if (other) {
      const ratio = Math.hypot(now.x - other.x, now.y - other.y) / Math.max(1, Math.hypot(before.x - other.x, before.y - other.y));
      this.map.pan(-dx / 2, -dy / 2);
      this.map.zoom(ratio, (now.x + other.x) / 2, (now.y + other.y) / 2);
    } else if (this.travelled > CLICK_PX) {
      this.canvas.dataset.dragging = 'true';
      this.map.point(null);
      this.map.pan(-dx, -dy);
    }
  }

  lift(event, cancelled = false) {
    const now = this.at(event);
    if (!this.down.delete(event.pointerId) || this.down.size) return;
    delete this.canvas.dataset.dragging;
    const tile = this.map.tileAt(now.x, now.y);
    if (!cancelled && this.travelled <= CLICK_PX && tile) this.map.choose(tile);
  }

  /** The page keeps its wheel; with Ctrl (which a pinch on a touchpad sends, too) it zooms, sideways it pans. */
  wheel(event) {
    const { x, y } = this.at(event);
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault();
      const lines = event.deltaMode === 1 ? 16 : 1;
      this.map.zoom(Math.exp(Math.max(-0.5, Math.min(0.5, (-event.deltaY * lines) / 240))), x, y);
    } else if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      event.preventDefault();
      this.map.pan(event.deltaX, 0);
    }
  }
}
