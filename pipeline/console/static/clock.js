// The server's clock as the browser knows it: ages must not depend on how this computer's clock is set.

const KEPT = 30;

class Clock {
  #lags = []; // ms: this computer's clock minus the server's, plus the way here; the smallest is the truest

  learn(serverNs) {
    this.#lags.push(Date.now() - serverNs / 1e6);
    if (this.#lags.length > KEPT) this.#lags.shift();
  }

  get nowMs() {
    return Date.now() - (this.#lags.length ? Math.min(...this.#lags) : 0);
  }

  ageS(ns) {
    return Math.max(0, (this.nowMs - ns / 1e6) / 1000);
  }
}

export const clock = new Clock();
