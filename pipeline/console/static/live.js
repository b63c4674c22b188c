// The stream of server-sent events, with reconnection when it ends or stalls.

const STALL_MS = 5000; // the server sends a message every second
const RETRY_MS = 1500;

export class Live {
  // `topics`: callbacks for the data of each event.  `linked(isLinked)`: called on each change.
  constructor(topics, linked) {
    this.topics = topics;
    this.linked = linked;
    this.isLinked = null; // not known yet
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
    if (silent > STALL_MS) this.#set(false);
    // Browsers do not retry a rejected connection, and do not notice a half-open one.
    const dead = this.source.readyState === EventSource.CLOSED && tried > RETRY_MS;
    if (dead || (silent > STALL_MS && tried > STALL_MS)) this.#connect();
  }

  #set(isLinked) {
    if (isLinked === this.isLinked) return;
    this.isLinked = isLinked;
    this.linked(isLinked);
  }
}
