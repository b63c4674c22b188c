// What reaches an operator who does not look at the page: a sound until every alarm is acknowledged, and notifications
// of the browser.  Both are opt-in, for each browser.

const REPEAT_MS = 5000;
const TONES = {alarm: [880, 660, 880], warning: [520]}; // Hz
const TONE_S = 0.22;

const byId = (id) => document.getElementById(id);

export class Alarm {
  #audio = null;
  #waiting = [];
  #last = 0; // when it sounded

  constructor() {
    this.#toggle("sound", "Sound", () => this.#sound());
    this.#toggle("notify", "Notifications", () => Notification.requestPermission());
    byId("notify").hidden = !("Notification" in window) || !window.isSecureContext;
    document.addEventListener("pointerdown", () => this.#unlock());
    document.addEventListener("keydown", () => this.#unlock());
    setInterval(() => this.#repeat(), 250);
    this.#show();
  }

  // `waiting`: alerts that nobody acknowledged; `fresh`: those of them that are new or have escalated; `said`: text of one.
  update(waiting, fresh, said) {
    this.#waiting = waiting;
    if (fresh.length) this.#last = 0;
    this.#repeat();
    if (!this.#isOn("notify") || Notification.permission !== "granted") return;
    for (const alert of fresh) {
      const notification = new Notification(said(alert), {tag: alert.id, body: "Not acknowledged", renotify: true});
      notification.onclick = () => window.focus();
    }
  }

  #isOn = (id) => localStorage.getItem(id) === "on";

  #toggle(id, what, switchedOn) {
    byId(id).addEventListener("click", async () => {
      localStorage.setItem(id, this.#isOn(id) ? "off" : "on");
      if (this.#isOn(id)) await switchedOn();
      this.#show();
    });
    byId(id).dataset.what = what;
  }

  #show() {
    for (const id of ["sound", "notify"]) {
      const button = byId(id);
      const isRefused = id === "notify" && this.#isOn(id) && Notification.permission === "denied";
      const isSilent = id === "sound" && this.#isOn(id) && this.#audio?.state !== "running";
      const state = isRefused ? "refused by the browser" : isSilent ? "silent until you click" : this.#isOn(id) ? "on" : "off";
      button.setAttribute("aria-pressed", this.#isOn(id));
      button.textContent = `${button.dataset.what} ${state}`;
    }
  }

  // Browsers let a page sound only once it was clicked or typed in.
  async #unlock() {
    if (!this.#isOn("sound")) return;
    this.#audio ??= new AudioContext();
    if (this.#audio.state === "suspended") await this.#audio.resume();
    this.#show();
  }

  async #sound() {
    await this.#unlock();
    this.#last = 0;
    this.#repeat();
  }

  #repeat() {
    const now = performance.now();
    if (!this.#waiting.length || !this.#isOn("sound") || this.#audio?.state !== "running") return;
    if (this.#last && now - this.#last < REPEAT_MS) return;
    this.#last = now;
    const isAlarm = this.#waiting.some((alert) => alert.highest_severity === "alarm");
    TONES[isAlarm ? "alarm" : "warning"].forEach((frequency, place) => this.#tone(frequency, place * TONE_S));
  }

  #tone(frequency, after_s) {
    const [source, volume] = [this.#audio.createOscillator(), this.#audio.createGain()];
    const start = this.#audio.currentTime + after_s;
    source.frequency.value = frequency;
    volume.gain.setValueAtTime(0.25, start);
    volume.gain.exponentialRampToValueAtTime(0.001, start + TONE_S);
    source.connect(volume).connect(this.#audio.destination);
    source.start(start);
    source.stop(start + TONE_S);
  }
}
