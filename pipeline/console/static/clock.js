// An estimate of the server's clock, so that ages do not depend on this computer's clock.

const KEPT = 30;

class Clock {
  #offsets = []; // ms: this computer's clock minus the server's, plus network delay; the smallest is the best estimate

  update(serverNs) {
    this.#offsets.push(Date.now() - serverNs / 1e6);
    if (this.#offsets.length > KEPT) this.#offsets.shift();
  }

  get nowMs() {
    return Date.now() - (this.#offsets.length ? Math.min(...this.#offsets) : 0);
  }

  ageS(ns) {
    return Math.max(0, (this.nowMs - ns / 1e6) / 1000);
  }
}

export const clock = new Clock();
