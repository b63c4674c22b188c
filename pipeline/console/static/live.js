// The stream of server-sent events: connects, and again whenever it ends or falls silent.

const SILENT_MS = 5000; // the server says something every second
const RETRY_MS = 1500;

export class Live {
  // `topics`: what to call with the data of each event.  `linked(isLinked)`: at each change.
  constructor(topics, linked) {
    this.topics = topics;
    this.linked = linked;
    this.isLinked = false;
    this.heard = performance.now();
    this.#connect();
    setInterval(() => this.#watch(), 500);
  }

  #connect() {
    this.source?.close();
    this.started = performance.now();
    this.source = new EventSource("/api/v1/live");
    for (const [topic, receive] of Object.entries(this.topics)) {
      this.source.addEventListener(topic, (event) => {
        this.heard = performance.now();
        this.#set(true);
        receive(JSON.parse(event.data));
      });
    }
    this.source.onerror = () => this.#set(false);
  }

  #watch() {
    const silent = performance.now() - this.heard;
    const tried = performance.now() - this.started;
    if (silent > SILENT_MS) this.#set(false);
    // A refused connection is given up by the browser for good, a half-open one is never noticed by it.
    const dead = this.source.readyState === EventSource.CLOSED && tried > RETRY_MS;
    if (dead || (silent > SILENT_MS && tried > SILENT_MS)) this.#connect();
  }

  #set(isLinked) {
    if (isLinked === this.isLinked) return;
    this.isLinked = isLinked;
    this.linked(isLinked);
  }
}
