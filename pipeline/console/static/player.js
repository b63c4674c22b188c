// An alert's clip with the boxes and paths of its tracks over it, at the frame that is shown.

import {drawFrame} from "./player_boxes.js";
import {make} from "./text.js";

const byId = (id) => document.getElementById(id);
const MAX_WAIT_MS = 500; // for the report of a frame after a seek
const MAX_SEEKS = 3; // for one frame
const KEYS = {",": "back", ".": "forward"};

export class Player {
  #video = byId("player").querySelector("video");
  #canvas = byId("player").querySelector("canvas");
  #shownS = NaN; // time in the file of the frame on the canvas
  #soughtS = NaN;
  #frameS = 0.04; // mean time between frames
  #marks = []; // {name, timeS}
  #startS = 0; // of the clip, in the file
  #endS = 0;

  // `clip`: its record; `tracks`: {label, boxes} with times in the clip; `marks`: {name, timeS}.
  constructor(url, clip, tracks, marks, failed) {
    this.tracks = tracks;
    this.#marks = marks;
    this.#frameS = (clip.last_pts_s - clip.first_pts_s) / Math.max(1, clip.packets - 1) || this.#frameS;
    this.#startS = clip.first_pts_s - clip.zero_pts_s;
    this.#endS = clip.last_pts_s - clip.zero_pts_s;
    const [width, height] = clip.size_px;
    this.#canvas.style.aspectRatio = `${width} / ${height}`;
    this.#canvas.style.width = `min(100%, calc(62vh * ${width / height}))`;
    this.#canvas.ariaLabel = "The clip, with the boxes of its tracks";
    this.#listen(failed);
    this.#video.src = url;
    byId("player").hidden = false;
  }

  #listen(failed) {
    const video = this.#video;
    video.addEventListener("error", failed, {once: true});
    video.addEventListener("loadeddata", () => this.#ready(), {once: true});
    video.addEventListener("seeked", () => this.#draw());
    for (const kind of ["play", "pause", "ended"]) {
      video.addEventListener(kind, () => (byId("play").textContent = video.paused ? "Play" : "Pause"));
    }
    byId("play").addEventListener("click", () => this.#toggle());
    byId("back").addEventListener("click", () => this.step(-1));
    byId("forward").addEventListener("click", () => this.step(1));
    byId("seek").addEventListener("input", () => this.seek(Number(byId("seek").value)));
    byId("speed").addEventListener("change", () => (video.playbackRate = Number(byId("speed").value)));
    for (const id of ["zoom", "boxes"]) byId(id).addEventListener("change", () => this.#draw());
    document.addEventListener("keydown", (event) => {
      if (KEYS[event.key] && !event.target.matches("input[type=text]")) byId(KEYS[event.key]).click();
    });
    new ResizeObserver(() => this.#draw()).observe(this.#canvas);
    const follow = (_, {mediaTime}) => {
      this.#shownS = mediaTime;
      this.#draw();
      video.requestVideoFrameCallback(follow);
    };
    video.requestVideoFrameCallback(follow);
  }

  #ready() {
    const seek = byId("seek");
    [seek.min, seek.max] = [this.#startS, this.#endS];
    const length = this.#endS - this.#startS || 1;
    byId("marks").replaceChildren(...this.#marks.map(({name, timeS}) => {
      const isEarly = timeS < this.#startS - this.#frameS;
      const mark = make("button", {type: "button", disabled: isEarly, title: isEarly ? "before the clip" : ""}, name);
      mark.style.setProperty("--at", `${(100 * Math.max(0, timeS - this.#startS)) / length}%`);
      mark.addEventListener("click", () => this.seek(timeS));
      return mark;
    }));
    this.seek(Math.max(this.#startS, this.#marks[0]?.timeS ?? this.#startS));
  }

  #toggle() {
    if (this.#video.paused) this.#video.play();
    else this.#video.pause();
  }

  // Resolves when the frame is shown, or another one is sought.  Sought is the middle of the frame, so that rounding does
  // not show the one before; and again where Chromium lost its report between that of another frame and the next request.
  async seek(timeS) {
    this.#video.pause();
    const soughtS = (this.#soughtS = Math.min(this.#endS, Math.max(this.#startS, timeS)) + this.#frameS / 2);
    const isShown = () => Math.abs(soughtS - this.#shownS - this.#frameS / 2) < 0.75 * this.#frameS;
    for (let tries = 0; tries < MAX_SEEKS && !isShown(); tries++) {
      this.#video.currentTime = soughtS + (tries * this.#frameS) / 100;
      await this.#newFrame();
      if (this.#soughtS !== soughtS || !this.#video.paused) return;
    }
  }

  // One frame on or back; where frames are further apart than the mean, on until another one is shown.
  async step(direction) {
    const before = this.#shownS;
    for (let tries = 1; tries <= 4 && this.#shownS === before; tries++) {
      const timeS = before + direction * tries * this.#frameS;
      if (timeS < this.#startS - this.#frameS || timeS > this.#endS + this.#frameS / 2) return;
      await this.seek(timeS);
    }
  }

  // A new frame is shown, or the seek, however long it takes, ended without one.
  #newFrame() {
    return new Promise((resolve) => {
      this.#video.requestVideoFrameCallback(() => resolve());
      this.#video.addEventListener("seeked", () => setTimeout(resolve, MAX_WAIT_MS), {once: true});
    });
  }

  #draw() {
    const canvas = this.#canvas;
    if (Number.isNaN(this.#shownS)) return;
    canvas.dataset.time = this.#shownS.toFixed(4);
    byId("seek").value = this.#shownS;
    byId("seek").ariaValueText = byId("time").textContent = `${(this.#shownS - this.#startS).toFixed(2)} s of ${(this.#endS - this.#startS).toFixed(2)} s`;
    const options = {zoom: Number(byId("zoom").value), withBoxes: byId("boxes").checked};
    canvas.dataset.boxes = drawFrame(canvas, this.#video, this.tracks, this.#shownS, options);
  }
}
