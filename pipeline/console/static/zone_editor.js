// Draws and moves zones, lines and masks over a frame.  A shape is {kind: "zone" | "mask", name, points}, in frame pixels.

const SVG = "http://www.w3.org/2000/svg";
const STEPS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
const LINE = 2; // points

export const title = (shape) => (shape.kind === "mask" ? "mask" : shape.points.length === LINE ? "line" : "zone") + ` ${shape.name}`;

function svg(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

// An arrow across the middle of a line, in the direction in which it is crossed: to its right.
function crossing([[x0, y0], [x1, y1]], unit) {
  const length = Math.hypot(x1 - x0, y1 - y0) || 1;
  const [along, right] = [[(x1 - x0) / length, (y1 - y0) / length], [(y0 - y1) / length, (x1 - x0) / length]];
  const at = (a, r) => [(x0 + x1) / 2 + unit * (a * along[0] + r * right[0]), (y0 + y1) / 2 + unit * (a * along[1] + r * right[1])];
  return [at(0, -14), at(0, 14), at(-6, 7), at(0, 14), at(6, 7)];
}

export class ZoneEditor {
  #shapes = [];
  #size = [640, 512];
  #drawing = null; // {kind, wanted, points}
  #drag = null; // {shape, point: index or null, from}
  #chosen = null;

  // `changed(isFinal)`: called after each change; `drawn(shape)`: a new shape is complete; `hint(text)`.
  constructor(element, {changed, drawn, hint}) {
    this.element = element;
    this.changed = changed;
    this.drawn = drawn;
    this.hint = hint;
    element.addEventListener("pointerdown", (event) => this.#down(event));
    element.addEventListener("pointermove", (event) => this.#move(event));
    element.addEventListener("pointerup", (event) => this.#up(event));
    element.addEventListener("dblclick", () => this.#finish());
    element.addEventListener("keydown", (event) => this.#key(event));
    document.addEventListener("keydown", (event) => {
      if (!this.#drawing) return;
      if (event.key === "Escape") this.#cancel();
      else if (event.key === "Enter" && event.target.tagName !== "BUTTON") this.#finish();
    });
    new ResizeObserver(() => this.draw()).observe(element);
  }

  setSize(size) {
    if (String(size) === String(this.#size)) return;
    this.#size = size;
    this.draw();
  }

  setShapes(shapes) {
    this.#shapes = shapes;
    this.#drawing = this.#drag = null;
    this.draw();
  }

  // Where the keyboard is used no click follows: Enter then inserts a shape in the middle, whose points can be moved.
  start(kind) {
    this.#drawing = {kind: kind === "mask" ? "mask" : "zone", wanted: kind === "line" ? LINE : Infinity, points: []};
    this.element.focus();
    this.hint(kind === "line" ? "Click on both ends; Enter: a line in the middle, Escape: cancel" : "Click on the corners, then Enter or a double click; Enter at once: a square in the middle, Escape: cancel");
    this.draw();
  }

  choose(shape) {
    this.#chosen = shape;
    this.draw();
  }

  focus(shape, point = 0) {
    this.element.querySelector(`[data-shape="${this.#shapes.indexOf(shape)}"][data-point="${point}"]`)?.focus();
  }

  #cancel() {
    this.#drawing = null;
    this.hint("");
    this.draw();
  }

  #finish() {
    if (!this.#drawing) return;
    const {kind, wanted} = this.#drawing;
    const points = this.#drawing.points.filter((point, i, all) => !i || String(point) !== String(all[i - 1])); // of a double click
    const least = kind === "mask" ? LINE + 1 : LINE;
    this.#drawing = null;
    this.hint("");
    if (points.length < (wanted === LINE ? LINE : LINE + 1)) {
      if (points.length) return this.draw();
      const [x, y] = this.#size.map((side) => side / 4);
      points.push(...(wanted === LINE ? [[x, 2 * y], [3 * x, 2 * y]] : [[x, y], [3 * x, y], [3 * x, 3 * y], [x, 3 * y]]));
    }
    const shape = {kind, name: "", points: points.map((point) => this.#inside(point)), least};
    this.#shapes.push(shape);
    this.drawn(shape);
    this.draw();
    this.focus(shape);
  }

  #inside(point) {
    return point.map((value, i) => Math.round(Math.min(this.#size[i], Math.max(0, value))));
  }

  #place(event) {
    const box = this.element.getBoundingClientRect();
    return this.#inside([((event.clientX - box.left) / box.width) * this.#size[0], ((event.clientY - box.top) / box.height) * this.#size[1]]);
  }

  #down(event) {
    if (event.button) return;
    const at = this.#place(event);
    if (this.#drawing) {
      this.#drawing.points.push(at);
      if (this.#drawing.points.length === this.#drawing.wanted) this.#finish();
      else this.draw();
      event.preventDefault();
      return;
    }
    const {shape: index, point, edge} = event.target.dataset;
    if (index === undefined) return;
    const shape = this.#shapes[index];
    if (edge !== undefined) shape.points.splice(Number(edge) + 1, 0, at); // a new point, between two
    const number = edge !== undefined ? Number(edge) + 1 : point === undefined ? null : Number(point);
    this.#drag = {shape, point: number, from: at, moved: edge !== undefined};
    this.element.setPointerCapture(event.pointerId);
    this.choose(shape);
    if (number === null) this.element.querySelector(`[data-body="${index}"]`)?.focus();
    else this.focus(shape, number);
    event.preventDefault();
  }

  #move(event) {
    if (!this.#drag) return;
    const at = this.#place(event);
    const {shape, point, from} = this.#drag;
    if (String(at) === String(from)) return;
    if (point === null) this.#shift(shape, at[0] - from[0], at[1] - from[1]);
    else shape.points[point] = at;
    this.#drag.from = at;
    this.#drag.moved = true;
    this.draw();
  }

  #up() {
    const moved = this.#drag?.moved;
    this.#drag = null;
    if (moved) this.changed();
  }

  // Moves a whole shape, as far as it stays within the frame.
  #shift(shape, dx, dy) {
    const by = [dx, dy].map((step, i) => {
      const values = shape.points.map((point) => point[i]);
      return Math.min(Math.max(step, -Math.min(...values)), this.#size[i] - Math.max(...values));
    });
    shape.points = shape.points.map((point) => point.map((value, i) => value + by[i]));
  }

  #key(event) {
    const {shape: index, point, body} = event.target.dataset;
    const shape = this.#shapes[index ?? body];
    if (!shape || this.#drawing) return;
    const number = point === undefined ? null : Number(point);
    let focused = number;
    if (event.key in STEPS) {
      const [dx, dy] = STEPS[event.key].map((step) => step * (event.shiftKey ? 10 : 1));
      if (number === null) this.#shift(shape, dx, dy);
      else shape.points[number] = this.#inside([shape.points[number][0] + dx, shape.points[number][1] + dy]);
    } else if (event.key === "Enter" && number !== null) {
      const next = shape.points[(number + 1) % shape.points.length];
      shape.points.splice(number + 1, 0, this.#inside(shape.points[number].map((value, i) => (value + next[i]) / 2 + (shape.points.length === LINE ? 10 * i : 0))));
      focused = number + 1;
    } else if (event.key === "Delete" || event.key === "Backspace") {
      if (number === null || shape.points.length <= (shape.kind === "mask" ? LINE + 1 : LINE)) this.#shapes.splice(this.#shapes.indexOf(shape), 1);
      else shape.points.splice(number, 1);
      focused = number === null ? null : Math.min(number, shape.points.length - 1);
    } else return;
    event.preventDefault();
    event.stopPropagation();
    this.draw();
    if (focused !== null) this.focus(shape, focused);
    else this.element.querySelector(`[data-body="${this.#shapes.indexOf(shape)}"]`)?.focus();
    this.changed();
  }

  draw() {
    const [width, height] = this.#size;
    this.element.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.element.parentElement.style.setProperty("--ratio", width / height);
    const unit = width / (this.element.clientWidth || width); // frame pixels a pixel of the screen
    const focused = document.activeElement?.dataset ?? {};
    const parts = this.#shapes.flatMap((shape, i) => this.#parts(shape, i, unit));
    if (this.#drawing) {
      const {points} = this.#drawing;
      parts.push(svg("polyline", {class: "drawn", points: points.join(" ")}));
      parts.push(...points.map(([x, y]) => svg("circle", {class: "drawn", cx: x, cy: y, r: 4 * unit})));
    }
    this.element.classList.toggle("drawing", this.#drawing !== null);
    this.element.replaceChildren(...parts);
    if (focused.point !== undefined) this.element.querySelector(`[data-shape="${focused.shape}"][data-point="${focused.point}"]`)?.focus();
  }

  #parts(shape, i, unit) {
    const points = shape.points.join(" ");
    const isLine = shape.points.length === LINE;
    const kind = `${shape.kind}${shape === this.#chosen ? " chosen" : ""}`;
    const body = svg(isLine ? "polyline" : "polygon", {class: kind, points, tabindex: 0, role: "button", "aria-label": `${title(shape)}: move all of it`, "data-shape": i, "data-body": i});
    const ends = shape.points.map((point, n) => [point, shape.points[(n + 1) % shape.points.length], n]).slice(0, isLine ? 1 : undefined);
    const middles = isLine && shape.kind === "zone" ? [] : ends.map(([a, b, n]) => svg("circle", {class: `edge ${kind}`, cx: (a[0] + b[0]) / 2, cy: (a[1] + b[1]) / 2, r: 4 * unit, "data-shape": i, "data-edge": n, "aria-hidden": "true"}));
    const corners = shape.points.map(([x, y], n) => svg("circle", {class: `corner ${kind}`, cx: x, cy: y, r: 6 * unit, tabindex: 0, role: "button", "aria-label": `${title(shape)}, point ${n + 1} of ${shape.points.length}: ${Math.round(x)}, ${Math.round(y)}`, "data-shape": i, "data-point": n}));
    const [x, y] = shape.points.reduce((a, b) => (b[1] < a[1] ? b : a));
    const label = svg("text", {x: x + 9 * unit, y: Math.max(14 * unit, y - 5 * unit), "aria-hidden": "true"});
    label.style.fontSize = `${12 * unit}px`;
    label.textContent = shape.name;
    const arrow = isLine && shape.kind === "zone" ? [svg("polyline", {class: "arrow", points: crossing(shape.points, unit).join(" "), "aria-hidden": "true"})] : [];
    return [body, ...arrow, ...middles, ...corners, label];
  }
}
