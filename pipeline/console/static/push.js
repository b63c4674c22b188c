// Notifications while no tab is open (Web Push): opt-in, for each browser, where the site has a sink of type `push`.

import {request} from "./request.js";

const WORKER = "/static/service_worker.js"; // it shows the notifications
const UNABLE = {
  insecure: ["needs HTTPS", "Browsers allow this over HTTPS or on localhost only: set console.tls"],
  unsupported: ["not supported by this browser", ""],
};

const post = (path, content) => request(path, {method: "POST", body: JSON.stringify(content)});

async function subscription() {
  const registration = await navigator.serviceWorker?.getRegistration("/");
  return registration?.pushManager.getSubscription();
}

// Ends what this browser is sent, as at a logout.
export async function leave() {
  const current = await subscription();
  if (!current) return;
  await post("/push/unsubscribe", {endpoint: current.endpoint});
  await current.unsubscribe();
}

export class Push {
  #button;
  #key = null; // of the site

  constructor(button) {
    this.#button = button;
    button.addEventListener("click", () => this.#attempt(() => this.#toggle()));
    this.#attempt(() => this.#start());
  }

  async #start() {
    this.#key = (await request("/push")).key;
    this.#button.hidden = this.#key === null;
    if (this.#key === null) return;
    if (!window.isSecureContext) return this.#unable("insecure");
    if (!("serviceWorker" in navigator && "PushManager" in window && "Notification" in window)) return this.#unable("unsupported");
    const current = await subscription();
    if (!current) return this.#show("off");
    if (Notification.permission !== "granted") return this.#show("refused by the browser");
    await this.#subscribe(); // again: the site may have lost it, or have a new key
    this.#show("on");
  }

  async #toggle() {
    if (this.#button.getAttribute("aria-pressed") === "true") {
      await leave();
      this.#show("off");
    } else if ((await Notification.requestPermission()) !== "granted") {
      this.#show("refused by the browser");
    } else {
      await this.#subscribe();
      this.#show("on");
    }
  }

  async #subscribe() {
    const {pushManager} = await navigator.serviceWorker.register(WORKER, {scope: "/"}).then(() => navigator.serviceWorker.ready);
    const options = {userVisibleOnly: true, applicationServerKey: this.#key};
    let current;
    try {
      current = await pushManager.subscribe(options);
    } catch (error) {
      if (error.name !== "InvalidStateError") throw error; // subscribed, with an old key
      await (await pushManager.getSubscription()).unsubscribe();
      current = await pushManager.subscribe(options);
    }
    try {
      await post("/push/subscribe", current);
    } catch (error) {
      await current.unsubscribe(); // a button that says "off" must not leave one behind
      throw error;
    }
  }

  async #attempt(work) {
    try {
      await work();
    } catch (error) {
      this.#show("failed", error.message);
    }
  }

  #unable(why) {
    this.#button.disabled = true;
    this.#show(...UNABLE[why]);
  }

  #show(state, reason = "") {
    this.#button.textContent = `Push ${state}`;
    this.#button.title = reason || "Notifications also while no tab is open";
    this.#button.setAttribute("aria-pressed", state === "on");
  }
}
