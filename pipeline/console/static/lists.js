// Lists of the store's alerts, events and tracks.

import {clock} from "./clock.js";
import {Details, review, SEVERITIES, snapshotUrl} from "./details.js";
import {clockTime, colour, duration, evidence, follow, happened, make, name, score, timeElement} from "./text.js";
import {isWaiting} from "./top.js";

const byId = (id) => document.getElementById(id);

export class Alerts {
  #known = null;
  #alerts = [];

  constructor(showCamera) {
    this.details = new Details(showCamera);
    setInterval(() => this.#tick(), 1000);
  }

  get active() {
    const active = this.#alerts.filter(isWaiting);
    return active.sort((a, b) => isSeen(a) - isSeen(b) || rank(a) - rank(b)); // equal ones stay newest first
  }

  receive(alerts) {
    this.#alerts = alerts;
    const active = this.active;
    const create = (alert) => this.#make(alert);
    follow(byId("active"), active, (alert) => alert.id, create, fillAlert);
    follow(byId("ended"), alerts.filter((alert) => !isWaiting(alert)), (alert) => alert.id, create, fillAlert);
    byId("ended-title").hidden = active.length === alerts.length;
    byId("alert-count").textContent = active.length ? String(active.length) : "";
    byId("no-alerts").hidden = active.length > 0;
    byId("no-alerts").textContent = "No active alerts.";
    this.#announce(active);
    this.details.receive(alerts);
    this.#tick();
  }

  #announce(active) {
    const fresh = this.#known ? active.filter((alert) => !this.#known.has(alert.id)) : [];
    this.#known = new Set(this.#alerts.map((alert) => alert.id));
    if (!fresh.length) return;
    const said = fresh.map((alert) => `${SEVERITIES[alert.severity]}: ${name(alert.label)} on ${alert.camera}`);
    byId("announce").textContent = said.join(". ");
    for (const alert of fresh) {
      const item = byId("active").querySelector(`[data-key="${alert.id}"]`);
      item?.classList.add("new");
      item?.addEventListener("animationend", () => item.classList.remove("new"), {once: true}); // otherwise moving it would restart the animation
    }
  }

  #make(alert) {
    const button = make(
      "button",
      {type: "button"},
      make("span", {className: "thumb"}),
      make(
        "span",
        {className: "what"},
        make("span", {className: "title"}, make("b"), make("span", {className: "severity"})),
        make("span", {className: "where"}),
        make("span", {className: "why"}),
      ),
    );
    const open = (isDismissing) => this.details.open(this.#alerts.find((one) => one.id === alert.id), isDismissing);
    button.addEventListener("click", () => open(false));
    const seen = make("button", {type: "button", className: "acknowledge"}, "Acknowledge");
    seen.addEventListener("click", () => review(alert.id, "acknowledge").catch(() => open(false))); // to try again there
    const dismiss = make("button", {type: "button", className: "dismiss"}, "Dismiss …");
    dismiss.addEventListener("click", () => open(true));
    return make("li", {}, button, make("div", {className: "actions"}, seen, dismiss));
  }

  #tick() {
    for (const list of [byId("active"), byId("ended")]) {
      for (const item of list.children) {
        const alert = JSON.parse(item.content);
        const where = item.querySelector(".where");
        where.textContent = `${alert.camera} · ${clockTime(alert.opened_utc_ns)} · ${span(alert)}`;
      }
    }
  }
}

const isSeen = (alert) => alert.acknowledged_utc_ns !== null;
const rank = (alert) => Object.keys(SEVERITIES).indexOf(alert.severity);

function standing(alert) {
  if (alert.dismissed_utc_ns !== null) return `Dismissed: ${alert.dismissed_as}`;
  if (alert.state === "ended") return isSeen(alert) ? "Ended" : "Ended · not acknowledged";
  return `${SEVERITIES[alert.severity]}${isSeen(alert) ? " · acknowledged" : ""}`;
}

function span(alert) {
  if (alert.state === "active") return `for ${duration(clock.ageS(alert.opened_utc_ns))}`;
  return `lasted ${duration((alert.ended_utc_ns - alert.opened_utc_ns) / 1e9)}`;
}

function fillAlert(item, alert) {
  item.dataset.severity = alert.severity;
  item.dataset.state = isWaiting(alert) ? "active" : "ended";
  item.dataset.seen = isSeen(alert);
  item.style.setProperty("--label", colour(alert.label));
  item.querySelector("b").textContent = name(alert.label);
  item.querySelector(".severity").textContent = standing(alert);
  item.querySelector(".acknowledge").hidden = isSeen(alert);
  const why = evidence(alert.evidence).slice(0, 2).join(" ");
  item.querySelector(".why").textContent = `score ${score(alert.score)}${why ? ` · ${why}` : ""}`;
  const thumb = item.querySelector(".thumb");
  if (thumb.dataset.file === (alert.snapshot ?? "")) return;
  thumb.dataset.file = alert.snapshot ?? "";
  if (!alert.snapshot) return thumb.replaceChildren("no image");
  const image = make("img", {alt: "", loading: "lazy", src: snapshotUrl(alert.snapshot)});
  image.addEventListener("error", () => thumb.replaceChildren("no image"));
  thumb.replaceChildren(image);
}

export function showEvents(events) {
  const create = () => make("li", {}, make("span"), make("b"), make("span", {className: "camera"}));
  follow(byId("events"), [...events].reverse(), (event) => event.id, create, (item, event) => {
    item.dataset.severity = event.severity;
    item.children[0].replaceChildren(timeElement(event.time_utc_ns));
    item.children[1].textContent = happened(event);
    item.children[2].textContent = event.camera;
  });
  byId("no-events").hidden = events.length > 0;
  byId("no-events").textContent = "No events yet.";
}

export function showTracks(tracks) {
  const create = () => make("tr", {}, ...Array.from({length: 6}, () => make("td")));
  follow(byId("tracks"), tracks, (track) => track.ulid, create, (row, track) => {
    const [seen, camera, label, state, points, span] = row.children;
    const [first, last] = [track.first_seen[5], track.last_seen[5]]; // FrameRef: received_utc_ns
    row.dataset.state = track.state;
    seen.replaceChildren(timeElement(last));
    camera.textContent = track.camera;
    label.replaceChildren(make("i", {className: "dot"}), `${name(track.label)} #${track.id}`);
    row.style.setProperty("--label", colour(track.label));
    state.textContent = track.state;
    points.textContent = score(track.score);
    span.textContent = duration((last - first) / 1e9);
    points.className = span.className = "number";
  });
  byId("no-tracks").hidden = tracks.length > 0;
  byId("no-tracks").textContent = "No tracks yet.";
}
