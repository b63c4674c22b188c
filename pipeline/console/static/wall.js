// The wall: a card per camera with its newest tracked frame and its state.

import {alertUrl} from "./alert.js";
import {clock} from "./clock.js";
import {drawFrame, drawTarget} from "./draw.js";
import {colour, duration, follow, make, name, score} from "./text.js";

const FRAME_PERIOD_MS = 80; // per camera
const TIMEOUT_MS = 5000;
const LATE_S = 2;
const OLD_S = 5;
const CHIPS = 8; // at most; those that do not fit are cut off
const MANY = 3; // cameras, above which the cards are in several rows
const BANDS = {visible: "Visible", infrared: "Infrared"};

class Card {
  #shown = null; // {frame, image} on the canvas
  #waiting = null; // the newest frame that has an image
  #busy = false;
  #status = null;
  #isLinked = true;
  alertOf = new Map(); // by ULID of a track

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
      this.#show(frame, null); // no images arrive: show only the tracks
    }
  }

  async #pump() {
    if (this.#busy) return;
    this.#busy = true;
    while (this.#waiting && !document.hidden) {
      const started = performance.now();
      const frame = this.#waiting;
      this.#waiting = null;
      const image = await fetchImage(frame);
      if (image) this.#show(frame, image);
      const rest = FRAME_PERIOD_MS - (performance.now() - started);
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, rest)));
    }
    this.#busy = false;
  }

  wakeUp() {
    this.#pump();
  }

  #show(frame, image) {
    this.#shown?.image?.close();
    this.#shown = {frame, image};
    this.view.style.aspectRatio = `${frame.width} / ${frame.height}`;
    this.#draw();
    this.#tick();
  }

  #draw() {
    if (!this.#shown) return;
    const {frame, image} = this.#shown;
    const zones = this.#status?.zones ?? {};
    drawFrame(this.canvas, frame, image, zones);
    this.canvas.dataset.zones = Object.keys(zones).join(" ");
    this.canvas.dataset.seq = frame.seq;
    this.canvas.dataset.picture = image !== null;
    const tracks = frame.tracks.filter((track) => track.state === "confirmed" || track.state === "coasting");
    this.canvas.ariaLabel = `${this.id}: ${tracks.map((track) => name(track.label)).join(", ") || "no tracks"}`;
    const shown = [...tracks].sort((a, b) => rank(a) - rank(b) || a.id - b.id).slice(0, CHIPS);
    const alerted = shown.map((track) => ({...track, alert: this.alertOf.get(track.ulid)}));
    follow(this.chips, alerted, (track) => track.ulid, makeChip, fillChip);
    shown.forEach((track, i) => {
      const zoom = this.chips.children[i].querySelector("canvas");
      if (image && track.state !== "coasting") drawTarget(zoom, frame, image, track);
    });
  }

  // Called periodically and on each change, so that an old image looks old even if no more frames arrive.
  #tick() {
    const status = this.#status;
    const age = this.#shown ? clock.ageS(this.#shown.frame.received_utc_ns) : null;
    this.age.textContent = age === null ? "" : duration(age);
    this.age.title = "Age of the image";
    const [mood, text] = this.#isLinked ? mode(status) : ["wait", "Unknown"];
    this.state.textContent = text;
    this.element.dataset.mood = mood;
    this.element.dataset.age = age === null ? "none" : age > OLD_S ? "old" : age > LATE_S ? "late" : "fresh";
    const note =
      age === null
        ? status?.state === "down" ? "No image: the camera does not respond" : "Waiting for an image"
        : age > OLD_S ? `Image is ${duration(age)} old` : this.#shown.image ? "" : "Tracks without images";
    this.note.textContent = note;
    this.note.hidden = !note;
  }

  tick() {
    this.#tick();
  }
}

const rank = (track) => ({uav: 0, unknown: 1})[track.label] ?? 2;

// The mood and text of a camera's state.
export function mode(status) {
  if (!status || status.state === "starting") return ["wait", "Starting"];
  if (status.state === "down") return ["bad", "Down"];
  if (status.state === "blind") return ["bad", `Blind${status.cause ? ` · ${status.cause}` : ""}`];
  if (status.blind_share >= 0.05) {
    return ["late", `Blind ${Math.round(status.blind_share * 100)} %${status.cause ? ` · ${status.cause}` : ""}`];
  }
  return ["good", "Processing"];
}

async function fetchImage(frame) {
  const session = encodeURIComponent(frame.session);
  const url = `/api/v1/cameras/${encodeURIComponent(frame.camera)}/frames/${frame.seq}.jpg?session=${session}`;
  try {
    const response = await fetch(url, {signal: AbortSignal.timeout(TIMEOUT_MS)});
    return response.ok ? await createImageBitmap(await response.blob()) : null;
  } catch {
    return null; // expired, interrupted or not a JPEG: the next one will follow
  }
}

function makeChip() {
  const link = make("a", {}, make("canvas", {ariaHidden: "true"}), make("p", {}, make("b"), make("span")));
  return make("li", {}, link);
}

function fillChip(chip, track) {
  chip.style.setProperty("--label", colour(track.label));
  const link = chip.firstElementChild;
  if (track.alert) link.href = alertUrl(track.alert);
  else link.removeAttribute("href");
  chip.querySelector("b").textContent = name(track.label);
  const what = track.state === "coasting" ? "coasting" : score(track.score);
  chip.querySelector("span").textContent = `#${track.id} · ${what}`;
}

export class Wall {
  #cards = new Map();
  #large = null;
  #alertOf = new Map(); // by ULID of a track; known before the cameras, perhaps

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
        card.alertOf = this.#alertOf;
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

  // The alert of each track that has one, by the track's ULID.
  setAlerts(alertOf) {
    this.#alertOf = alertOf;
    for (const card of this.#cards.values()) card.alertOf = alertOf;
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
