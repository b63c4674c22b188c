// Video-wall mode, at `/?wall`: all cameras on one screen without scrolling, and the camera of the newest alarm on top.

import {isWaiting} from "./alert.js";

const byId = (id) => document.getElementById(id);
const RATIO = 1.3; // of a camera's width to its height, usually
const GAP_PX = 4;

// Returns how many columns make cards of `ratio` largest, of which `count` fit.
export function columnsFor(count, width, height, ratio = RATIO) {
  let [best, widest] = [1, 0];
  for (let columns = 1; columns <= count; columns++) {
    const rows = Math.ceil(count / columns);
    const across = Math.min((width - GAP_PX * (columns - 1)) / columns, ((height - GAP_PX * (rows - 1)) / rows) * ratio);
    if (across > widest + 0.01) [best, widest] = [columns, across];
  }
  return best;
}

export class VideoWall {
  #isOn = false;
  #alarms = []; // newest first
  #dismissed = new Set(); // ids of alerts whose pop-up was closed

  constructor(wall) {
    this.wall = wall;
    byId("video-wall").addEventListener("click", () => this.#set(true));
    byId("leave-wall").addEventListener("click", () => this.#set(false));
    byId("full-screen").addEventListener("click", () => (document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen()));
    addEventListener("popstate", () => this.#show(this.#isAsked));
    addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !this.#isOn || document.fullscreenElement) return;
      if (this.wall.popped) this.#dismiss();
      else this.#set(false);
    });
    new ResizeObserver(() => this.layOut()).observe(wall.element);
    this.#show(this.#isAsked);
  }

  get #isAsked() {
    return new URLSearchParams(location.search).has("wall");
  }

  #set(isOn) {
    history.pushState(null, "", isOn ? "/?wall" : "/");
    this.#show(isOn);
    byId(isOn ? "leave-wall" : "video-wall").focus();
  }

  #show(isOn) {
    this.#isOn = isOn;
    document.body.classList.toggle("video-wall", isOn);
    byId("wall-tools").hidden = !isOn;
    if (isOn) this.wall.shrink();
    this.layOut();
    this.#popUp();
  }

  layOut() {
    if (!this.#isOn) return;
    const {element} = this.wall;
    const columns = columnsFor(element.children.length, element.clientWidth, element.clientHeight);
    element.style.setProperty("--columns", columns);
    element.style.setProperty("--rows", Math.ceil(element.children.length / columns));
  }

  receive(alerts) {
    const waiting = alerts.filter((alert) => isWaiting(alert) && alert.severity === "alarm" && alert.state === "active");
    this.#alarms = waiting.sort((a, b) => b.opened_utc_ns - a.opened_utc_ns);
    this.update();
  }

  // After each change of the cameras or alarms, of which either may be known first.
  update() {
    this.layOut();
    this.wall.setAlarming(new Set(this.#alarms.map((alert) => alert.camera)));
    this.#popUp();
  }

  #popUp() {
    const newest = this.#alarms.find((alert) => !this.#dismissed.has(alert.id));
    this.wall.popUp(this.#isOn && newest ? newest.camera : null);
  }

  #dismiss() {
    this.#dismissed = new Set(this.#alarms.map((alert) => alert.id)); // all that are there: the next one pops up again
    this.#popUp();
  }
}
