// The wall: a card per camera with its newest tracked frame and its state.

import {alertUrl} from "./alert.js";
import {meaning, mode} from "./camera_state.js";
import {clock} from "./clock.js";
import {drawFrame, drawTarget} from "./draw.js";
import {fetchImage} from "./frame_image.js";
import {LiveVideo} from "./live_video.js";
import {colour, duration, follow, make, name, score} from "./text.js";
import {Zoom} from "./zoom.js";

const FRAME_PERIOD_MS = 80; // per camera
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
    this.source = make("p", {className: "source"});
    this.state = make("p", {className: "state"});
    this.age = make("p", {className: "age"});
    this.chips = make("ul", {className: "chips"});
    this.button = make("button", {type: "button", title: "Enlarge or shrink (Esc)"}, camera.id);
    this.button.setAttribute("aria-expanded", "false");
    this.button.addEventListener("click", () => toggle(this));
    const band = make("p", {className: `band ${camera.band}`}, BANDS[camera.band] ?? camera.band);
    this.view = make("div", {className: "view"}, this.canvas, this.source, this.note);
    this.view.addEventListener("dblclick", (event) => event.target.closest(".tools") || toggle(this));
    this.zoom = new Zoom(this.view, () => this.#draw());
    this.video = new LiveVideo(camera.id, (frame, video) => this.#show(frame, video));
    this.view.append(this.#tools());
    this.element = make(
      "article",
      {className: "card", data: {camera: camera.id}, ariaLabel: `Camera ${camera.id}`},
      make("div", {className: "bar"}, make("h2", {}, this.button), band, this.state, this.age),
      this.view,
      this.chips,
    );
    new ResizeObserver(() => this.#draw()).observe(this.canvas);
  }

  // Shown where the card is enlarged.
  #tools() {
    const tool = (text, ariaLabel, act) => {
      const button = make("button", {type: "button", ariaLabel, title: ariaLabel}, text);
      button.addEventListener("click", act);
      return button;
    };
    const zones = make("a", {href: `/camera/${encodeURIComponent(this.id)}/zones`, className: "zones-link"}, "Zones");
    return make(
      "div",
      {className: "tools"},
      tool("−", "Zoom out (-)", () => this.zoom.key("-")),
      tool("+", "Zoom in (+)", () => this.zoom.key("+")),
      tool("1:1", "Whole image (0)", () => this.zoom.key("0")),
      tool("Full screen", "Full screen (f)", () => this.fullScreen()),
      zones,
    );
  }

  fullScreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else this.element.requestFullscreen();
  }

  setLarge(isLarge) {
    this.zoom.isOn = isLarge;
    this.video.isOn = isLarge;
    this.element.classList.toggle("large", isLarge);
    this.button.setAttribute("aria-expanded", String(isLarge));
  }

  // Lies on top of the others, on the video wall.
  setPopped(isPopped) {
    this.element.classList.toggle("popped", isPopped);
    this.video.isOn = isPopped || this.element.classList.contains("large");
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
    this.video.receive(frame);
    if (this.video.isShown) return;
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
      if (image && !this.video.isShown) this.#show(frame, image);
      const rest = FRAME_PERIOD_MS - (performance.now() - started);
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, rest)));
    }
    this.#busy = false;
  }

  wakeUp() {
    this.#pump();
  }

  #show(frame, image) {
    this.#shown?.image?.close?.();
    this.#shown = {frame, image};
    this.view.style.aspectRatio = `${frame.width} / ${frame.height}`;
    this.#draw();
    this.#tick();
  }

  #draw() {
    if (!this.#shown) return;
    const {frame, image} = this.#shown;
    const {zones = {}, sectors = {}} = this.#status ?? {};
    drawFrame(this.canvas, frame, image, zones, sectors, this.zoom);
    this.canvas.dataset.zones = Object.keys({...zones, ...sectors}).join(" ");
    this.canvas.dataset.seq = frame.seq;
    this.canvas.dataset.picture = image !== null;
    this.canvas.dataset.video = Boolean(frame.is_video);
    this.canvas.dataset.pts = frame.pts_s;
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
    const why = this.#isLinked ? meaning(status) : "";
    this.state.title = why;
    const isTold = mood === "bad" || this.element.matches(".large, .popped"); // not all over a small image that is there
    const note = [this.#agePart(age), isTold && why].filter(Boolean).join(" · ");
    this.note.textContent = note;
    this.note.hidden = !note;
    const images = [this.#shown?.image === null ? "" : "Images, as processed", this.video.reason].filter(Boolean).join(" · ");
    this.source.textContent = this.#shown?.frame.is_video ? "Live video" : images;
  }

  #agePart(age) {
    if (age === null) return this.#status?.state === "down" ? "No image" : "Waiting for an image";
    if (age > OLD_S) return `Image is ${duration(age)} old`;
    return this.#shown.image ? "" : "Tracks without images";
  }

  tick() {
    this.#tick();
  }
}

const rank = (track) => ({uav: 0, unknown: 1})[track.label] ?? 2;

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
  popped = null;

  constructor(element) {
    this.element = element;
    setInterval(() => this.#cards.forEach((card) => card.tick()), 500);
    document.addEventListener("visibilitychange", () => this.#cards.forEach((card) => card.wakeUp()));
    document.addEventListener("keydown", (event) => {
      const isTyped = event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input, select, textarea");
      if (!this.#large || isTyped || document.querySelector("dialog[open]")) return;
      if (event.key === "Escape") this.#toggle(this.#large);
      else if (event.key === "f") this.#large.fullScreen();
      else if (this.#large.zoom.key(event.key)) event.preventDefault();
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
    card.setPopped(false); // its video ends
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

  shrink() {
    if (this.#large) this.#toggle(this.#large);
  }

  // Cameras with an alarm that nobody has acknowledged.
  setAlarming(cameras) {
    this.#cards.forEach((card) => card.element.classList.toggle("alarming", cameras.has(card.id)));
  }

  // The camera that lies on top of the others; null: none.
  popUp(camera) {
    this.popped = camera && this.#cards.get(camera) ? camera : null;
    this.#cards.forEach((card) => card.setPopped(card.id === this.popped));
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
