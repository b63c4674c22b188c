// Digital zoom of a card's image: wheel, drag, + - 0 and the buttons.  The frame is drawn again, so that lines stay thin.

const MOST = 16;
const STEP = 1.5;

export class Zoom {
  factor = 1;
  x = 0.5; // of the frame, in the middle of the view
  y = 0.5;
  #from = null; // of a drag
  #isOn = false;

  constructor(element, changed) {
    this.element = element;
    this.changed = changed;
    element.addEventListener("wheel", (event) => {
      if (!this.#isOn) return;
      event.preventDefault();
      this.by(event.deltaY < 0 ? STEP : 1 / STEP, this.#share(event));
    }, {passive: false});
    element.addEventListener("pointerdown", (event) => {
      if (!this.#isOn || this.factor === 1 || event.target.closest("button, a")) return;
      this.#from = [event.clientX, event.clientY];
      element.setPointerCapture(event.pointerId);
    });
    element.addEventListener("pointermove", (event) => {
      if (!this.#from) return;
      const box = element.getBoundingClientRect();
      this.x -= (event.clientX - this.#from[0]) / box.width / this.factor;
      this.y -= (event.clientY - this.#from[1]) / box.height / this.factor;
      this.#from = [event.clientX, event.clientY];
      this.#set();
    });
    for (const end of ["pointerup", "pointercancel"]) element.addEventListener(end, () => { this.#from = null; });
  }

  set isOn(isOn) {
    this.#isOn = isOn;
    if (!isOn) this.reset();
  }

  // `at`: where in the view the frame stays, 0 to 1 across and down.
  by(step, at = [0.5, 0.5]) {
    const before = this.factor;
    this.factor = Math.min(MOST, Math.max(1, this.factor * step));
    this.x += (at[0] - 0.5) * (1 / before - 1 / this.factor);
    this.y += (at[1] - 0.5) * (1 / before - 1 / this.factor);
    this.#set();
  }

  pan(dx, dy) {
    this.x += (0.1 * dx) / this.factor;
    this.y += (0.1 * dy) / this.factor;
    this.#set();
  }

  reset() {
    [this.factor, this.x, this.y] = [1, 0.5, 0.5];
    this.#set();
  }

  // Returns whether the key was one of the zoom's.
  key(key) {
    if (!this.#isOn) return false;
    const pans = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[key];
    if (key === "+" || key === "=") this.by(STEP);
    else if (key === "-") this.by(1 / STEP);
    else if (key === "0") this.reset();
    else if (pans && this.factor > 1) this.pan(...pans);
    else return false;
    return true;
  }

  #share(event) {
    const box = this.element.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  #set() {
    const half = 0.5 / this.factor;
    [this.x, this.y] = [this.x, this.y].map((value) => Math.min(1 - half, Math.max(half, value)));
    this.changed();
  }
}
