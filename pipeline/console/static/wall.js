// The wall: a card for each camera, with the newest picture whose tracks are known, and the camera's state.

import {clock} from "./clock.js";
import {drawFrame, drawTarget} from "./draw.js";
import {colour, duration, follow, make, name, score} from "./text.js";

const PICTURE_EVERY_MS = 80; // of each camera
const TIMEOUT_MS = 5000;
const LATE_S = 2;
const OLD_S = 5;
const CHIPS = 8; // what does not fit is not seen
const MANY = 3; // cameras, with which the cards stand in more than one row
const BANDS = {visible: "Visible", infrared: "Infrared"};

class Card {
  #shown = null; // {frame, picture}: what the canvas shows
  #waiting = null; // the newest frame that has a picture
  #busy = false;
  #status = null;
  #isLinked = true;

  constructor(camera, toggle) {
    this.id = camera.id;
    this.band = camera.band;
    this.canvas = make("canvas", {role: "img"});
    this.note = make("p", {className: "note", hidden: true});
    this.state = make("p", {className: "state"});
    this.age = make("p", {className: "age"});
    this.chips = make("ul", {className: "chips"});
    this.button = make("button", {type: "button", title: "Enlarge or shrink (Esc)"}, camera.id);
    this.button.setAttribute("aria-expanded", "false");
    this.button.addEventListener("click", () => toggle(this));
    const band = make("p", {className: `band ${camera.band}`}, BANDS[camera.band] ?? camera.band);
    this.view = make("div", {className: "view"}, this.canvas, this.note);
    this.view.addEventListener("dblclick", () => toggle(this));
    this.element = make(
      "article",
      {className: "card", data: {camera: camera.id}, ariaLabel: `Camera ${camera.id}`},
      make("div", {className: "bar"}, make("h2", {}, this.button), band, this.state, this.age),
      this.view,
      this.chips,
    );
    new ResizeObserver(() => this.#draw()).observe(this.canvas);
  }

  setLarge(isLarge) {
    this.element.classList.toggle("large", isLarge);
    this.button.setAttribute("aria-expanded", String(isLarge));
  }

  setStatus(status) {
    this.#status = status;
    this.button.title = `${status.uri}\nEnlarge or shrink (Esc)`;
    this.#tick();
  }

  setLinked(isLinked) {
    this.#isLinked = isLinked;
    this.#tick();
  }

  receive({frame, picture}) {
    if (picture) {
      this.#waiting = frame;
      this.#pump();
    } else if (!this.#shown || clock.ageS(this.#shown.frame.received_utc_ns) > LATE_S) {
      this.#show(frame, null); // no pictures come: the tracks alone
    }
  }

  async #pump() {
    if (this.#busy) return;
    this.#busy = true;
    while (this.#waiting && !document.hidden) {
      const started = performance.now();
      const frame = this.#waiting;
      this.#waiting = null;
      const picture = await fetchPicture(frame);
      if (picture) this.#show(frame, picture);
      const rest = PICTURE_EVERY_MS - (performance.now() - started);
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, rest)));
    }
    this.#busy = false;
  }

  wakeUp() {
    this.#pump();
  }

  #show(frame, picture) {
    this.#shown?.picture?.close();
    this.#shown = {frame, picture};
    this.view.style.aspectRatio = `${frame.width} / ${frame.height}`;
    this.#draw();
    this.#tick();
  }

  #draw() {
    if (!this.#shown) return;
    const {frame, picture} = this.#shown;
    drawFrame(this.canvas, frame, picture);
    this.canvas.dataset.seq = frame.seq;
    this.canvas.dataset.picture = picture !== null;
    const tracks = frame.tracks.filter((track) => track.state === "confirmed" || track.state === "coasting");
    this.canvas.ariaLabel = `${this.id}: ${tracks.map((track) => name(track.label)).join(", ") || "nothing tracked"}`;
    const shown = [...tracks].sort((a, b) => rank(a) - rank(b) || a.id - b.id).slice(0, CHIPS);
    follow(this.chips, shown, (track) => track.ulid, makeChip, fillChip);
    shown.forEach((track, i) => {
      const zoom = this.chips.children[i].querySelector("canvas");
      if (picture && track.state !== "coasting") drawTarget(zoom, frame, picture, track);
    });
  }

  // Once a second, and at each change: what is old must look old, also when nothing comes any more.
  #tick() {
    const status = this.#status;
    const age = this.#shown ? clock.ageS(this.#shown.frame.received_utc_ns) : null;
    this.age.textContent = age === null ? "" : duration(age);
    this.age.title = "Age of the picture";
    const [mood, text] = this.#isLinked ? mode(status) : ["wait", "Not known"];
    this.state.textContent = text;
    this.element.dataset.mood = mood;
    this.element.dataset.age = age === null ? "none" : age > OLD_S ? "old" : age > LATE_S ? "late" : "fresh";
    const note =
      age === null
        ? status?.state === "down" ? "No picture: the camera does not answer" : "Waiting for a picture"
        : age > OLD_S ? `Picture is ${duration(age)} old` : this.#shown.picture ? "" : "Tracks without pictures";
    this.note.textContent = note;
    this.note.hidden = !note;
  }

  tick() {
    this.#tick();
  }
}

const rank = (track) => ({uav: 0, unknown: 1})[track.label] ?? 2;

// How to feel about a camera, and why.
export function mode(status) {
  if (!status || status.state === "starting") return ["wait", "Starting"];
  if (status.state === "down") return ["bad", "Down"];
  if (status.state === "blind") return ["bad", `Blind${status.cause ? ` · ${status.cause}` : ""}`];
  if (status.blind_share >= 0.05) {
    return ["late", `Blind ${Math.round(status.blind_share * 100)} %${status.cause ? ` · ${status.cause}` : ""}`];
  }
  return ["good", "Searching"];
}

async function fetchPicture(frame) {
  const session = encodeURIComponent(frame.session);
  const url = `/api/v1/cameras/${encodeURIComponent(frame.camera)}/frames/${frame.seq}.jpg?session=${session}`;
  try {
    const response = await fetch(url, {signal: AbortSignal.timeout(TIMEOUT_MS)});
    return response.ok ? await createImageBitmap(await response.blob()) : null;
  } catch {
    return null; // gone, cut off or no JPEG: the next one is on its way
  }
}

function makeChip() {
  return make("li", {}, make("canvas", {ariaHidden: "true"}), make("p", {}, make("b"), make("span")));
}

function fillChip(chip, track) {
  chip.style.setProperty("--label", colour(track.label));
  chip.querySelector("b").textContent = name(track.label);
  const what = track.state === "coasting" ? "out of sight" : score(track.score);
  chip.querySelector("span").textContent = `#${track.id} · ${what}`;
}

export class Wall {
  #cards = new Map();
  #large = null;

  constructor(element) {
    this.element = element;
    setInterval(() => this.#cards.forEach((card) => card.tick()), 500);
    document.addEventListener("visibilitychange", () => this.#cards.forEach((card) => card.wakeUp()));
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.#large && !document.querySelector("dialog[open]")) this.#toggle(this.#large);
    });
  }

  setCameras(cameras) {
    const bands = new Map(cameras.map((camera) => [camera.id, camera.band]));
    for (const card of this.#cards.values()) if (bands.get(card.id) !== card.band) this.#remove(card);
    for (const camera of cameras) {
      if (!this.#cards.has(camera.id)) {
        const card = new Card(camera, (chosen) => this.#toggle(chosen));
        this.#cards.set(camera.id, card);
        this.element.append(card.element);
      }
      this.#cards.get(camera.id).setStatus(camera);
    }
    this.element.classList.toggle("many", cameras.length > MANY);
  }

  #remove(card) {
    if (card === this.#large) this.#toggle(card);
    card.element.remove();
    this.#cards.delete(card.id);
  }

  setLinked(isLinked) {
    this.#cards.forEach((card) => card.setLinked(isLinked));
  }

  receive(update) {
    this.#cards.get(update.frame.camera)?.receive(update);
  }

  enlarge(id) {
    const card = this.#cards.get(id);
    if (card && card !== this.#large) this.#toggle(card);
    card?.button.focus();
  }

  #toggle(card) {
    const isLarge = card !== this.#large;
    this.#large?.setLarge(false);
    this.#large = isLarge ? card : null;
    if (isLarge) card.setLarge(true);
    document.body.classList.toggle("enlarged", isLarge);
    if (isLarge) this.element.scrollIntoView({block: "nearest"});
  }
}
