// A camera's own video through Media Source Extensions, near its newest frame.  Where there is none (another codec, no
// recording, another host), images are shown, and `reason` says why.

const LATE_S = 0.2; // behind the newest frame, from which on it is played a little faster
const LATEST_S = 0.8; // the same, where packets come so unsteadily that the video stalls
const STEADIER = 0.999; // of that, with each part that comes in time
const TOO_LATE_S = 1.5; // jumps
const KEPT_S = 8; // behind the shown frame
const AGAIN_MS = 2000;
const REFUSED_AGAIN_MS = 10_000;
const MATCH_S = 0.5; // between a video frame and the frame whose tracks are drawn on it
const FRAMES = 60; // of tracks, remembered

export class LiveVideo {
  #frames = []; // the newest tracked ones
  #stop = null;
  #session = "";
  #zero = 0;
  #late = LATE_S;
  video = null;
  reason = ""; // why there is no video

  // `show(frame, video)`: a new video frame with the tracks of the frame nearest to it.
  constructor(camera, show) {
    this.camera = camera;
    this.show = show;
  }

  get isShown() {
    return this.video !== null && this.video.readyState >= 2 && !this.video.paused;
  }

  set isOn(isOn) {
    if (isOn === (this.#stop !== null)) return;
    this.#stop?.abort();
    this.#stop = isOn ? new AbortController() : null;
    if (isOn) this.#run(this.#stop.signal);
  }

  receive(frame) {
    this.#frames.push(frame);
    if (this.#frames.length > FRAMES) this.#frames.shift();
  }

  async #run(signal) {
    while (!signal.aborted) {
      this.reason = "";
      const stream = new AbortController(); // of one response: what is not read is not sent
      try {
        await this.#stream(AbortSignal.any([signal, stream.signal]));
      } catch {
        // interrupted: again, from the newest keyframe
      }
      stream.abort();
      this.#drop();
      await new Promise((resolve) => setTimeout(resolve, this.reason ? REFUSED_AGAIN_MS : AGAIN_MS));
    }
  }

  async #stream(signal) {
    const response = await fetch(`/api/v1/cameras/${encodeURIComponent(this.camera)}/live.mp4`, {signal});
    const type = response.headers.get("content-type") ?? "";
    if (!response.ok) this.reason = (await response.json()).error;
    else if (!("MediaSource" in window && MediaSource.isTypeSupported(type))) this.reason = `this browser does not play ${type}`;
    if (this.reason) return;
    this.#session = response.headers.get("x-session");
    this.#zero = Number(response.headers.get("x-zero-pts-s"));
    const video = document.createElement("video");
    Object.assign(video, {muted: true, playsInline: true});
    video.addEventListener("waiting", () => { this.#late = Math.min(LATEST_S, 1.5 * this.#late); });
    const media = new MediaSource();
    const address = URL.createObjectURL(media);
    video.src = address;
    await once(media, "sourceopen");
    signal.throwIfAborted(); // another one may have begun
    URL.revokeObjectURL(address);
    this.video = video;
    const buffer = media.addSourceBuffer(type);
    this.#follow(video, signal);
    const reader = response.body.getReader();
    for (;;) {
      const {value, done} = await reader.read();
      if (done) return;
      await change(buffer, () => buffer.appendBuffer(value));
      this.#keepUp(video);
      const first = video.buffered.length ? video.buffered.start(0) : 0;
      if (video.currentTime - first > 2 * KEPT_S) await change(buffer, () => buffer.remove(0, video.currentTime - KEPT_S));
      if (video.paused) video.play().catch(() => {});
    }
  }

  #keepUp(video) {
    if (!video.buffered.length) return;
    const newest = video.buffered.end(video.buffered.length - 1);
    const behind = newest - video.currentTime;
    if (behind > TOO_LATE_S || behind < 0) video.currentTime = Math.max(0, newest - 0.1);
    video.playbackRate = behind > this.#late ? 1.15 : 1;
    this.#late = Math.max(LATE_S, STEADIER * this.#late);
  }

  #follow(video, signal) {
    const shown = (_now, {mediaTime}) => {
      if (signal.aborted || video !== this.video) return;
      const frame = this.#nearest(mediaTime + this.#zero, video);
      if (frame) this.show(frame, video);
      video.requestVideoFrameCallback(shown);
    };
    video.requestVideoFrameCallback(shown);
  }

  // The frame at a time of the session, with the tracks of the nearest one; without tracks where none is near.
  #nearest(ptsS, video) {
    const own = this.#frames.filter((frame) => frame.session === this.#session);
    if (!own.length) return null;
    const near = own.reduce((a, b) => (Math.abs(b.pts_s - ptsS) < Math.abs(a.pts_s - ptsS) ? b : a));
    const apart = ptsS - near.pts_s;
    const tracks = Math.abs(apart) < MATCH_S ? near.tracks : [];
    return {...near, tracks, pts_s: ptsS, received_utc_ns: near.received_utc_ns + apart * 1e9, is_video: video !== null};
  }

  #drop() {
    this.video?.removeAttribute("src");
    this.video?.load();
    this.video = null;
  }
}

const once = (target, event) => new Promise((resolve) => target.addEventListener(event, resolve, {once: true}));

async function change(buffer, act) {
  act();
  if (buffer.updating) await once(buffer, "updateend");
}
