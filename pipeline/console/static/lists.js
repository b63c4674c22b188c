// Lists of the store's alerts, events and tracks.

import {Alarm} from "./alarm.js";
import {SEVERITIES, alertUrl, byUrgency, change, count, isOpen, isWaiting, numbers, ruleOf, span, standing} from "./alert.js";
import {Details, review, snapshotUrl} from "./details.js";
import {request} from "./request.js";
import {colour, duration, evidence, follow, happened, make, moment, name, score, timeElement} from "./text.js";

const byId = (id) => document.getElementById(id);

export class Alerts {
  #known = null; // when each was last escalated
  #alerts = [];
  #alarm = new Alarm();

  constructor(showCamera) {
    this.details = new Details(showCamera);
    byId("acknowledge-ended").addEventListener("click", () => this.#acknowledgeEnded());
    setInterval(() => this.#tick(), 1000);
  }

  receive(alerts) {
    this.#alerts = alerts;
    const open = alerts.filter(isOpen).sort(byUrgency);
    const waiting = alerts.filter(isWaiting);
    const create = (alert) => this.#make(alert);
    follow(byId("active"), open, (alert) => alert.id, create, fillAlert);
    follow(byId("ended"), alerts.filter((alert) => !isOpen(alert)), (alert) => alert.id, create, fillAlert);
    byId("ended-title").hidden = open.length === alerts.length;
    byId("alert-count").textContent = count(waiting.length);
    byId("no-alerts").hidden = open.length > 0;
    byId("no-alerts").textContent = "No active alerts.";
    const gone = waiting.filter((alert) => alert.state === "ended").length;
    byId("acknowledge-ended").hidden = !gone;
    byId("acknowledge-ended").textContent = `Acknowledge ended (${count(gone)})`;
    this.#announce(waiting);
    this.details.receive(alerts);
    this.#tick();
  }

  async #acknowledgeEnded() {
    const problem = byId("alerts-problem");
    problem.hidden = true;
    try {
      await request("/alerts/acknowledge-ended", {method: "POST"});
    } catch (error) {
      problem.textContent = error.message;
      problem.hidden = false;
    }
  }

  // New and escalated ones.
  #announce(waiting) {
    const known = this.#known;
    this.#known = new Map(this.#alerts.map((alert) => [alert.id, alert.escalated_utc_ns]));
    const fresh = known ? waiting.filter((alert) => known.get(alert.id) !== alert.escalated_utc_ns) : [];
    this.#alarm.update(waiting, fresh, said);
    if (!fresh.length) return;
    byId("announce").textContent = fresh.map(said).join(". ");
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
        make("span", {className: "title"}, make("b"), make("span", {className: "severity"}), make("span", {className: "pinned"}, "Pinned")),
        make("span", {className: "change"}),
        make("span", {className: "where"}),
        make("span", {className: "why"}),
      ),
    );
    const open = (isReviewing) => this.details.open(this.#alerts.find((one) => one.id === alert.id), isReviewing);
    button.addEventListener("click", () => open(false));
    const seen = make("button", {type: "button", className: "acknowledge"}, "Acknowledge");
    seen.addEventListener("click", () => review(alert.id, "acknowledge").catch(() => open(false))); // to try again there
    const verdict = make("button", {type: "button", className: "verdict"}, "Verdict …");
    verdict.addEventListener("click", () => open(true));
    return make("li", {}, button, make("div", {className: "actions"}, seen, verdict));
  }

  #tick() {
    for (const list of [byId("active"), byId("ended")]) {
      for (const item of list.children) {
        const alert = JSON.parse(item.content);
        const where = item.querySelector(".where");
        where.textContent = `${alert.camera} · ${moment(alert.opened_utc_ns)} · ${span(alert)}`;
      }
    }
  }
}

function said(alert) {
  const text = change(alert);
  return `${SEVERITIES[alert.severity]}: ${name(alert.label)} on ${alert.camera}${text ? `, ${text}` : ""}`;
}

function fillAlert(item, alert) {
  item.dataset.severity = alert.highest_severity;
  item.dataset.state = isOpen(alert) ? "active" : "ended";
  item.dataset.seen = !isWaiting(alert);
  item.style.setProperty("--label", colour(alert.highest_label));
  item.querySelector("b").textContent = `${name(alert.label)} ${numbers(alert)}`;
  item.querySelector(".severity").textContent = standing(alert);
  item.querySelector(".change").textContent = change(alert);
  item.querySelector(".change").hidden = !change(alert);
  item.querySelector(".acknowledge").hidden = !isWaiting(alert);
  const why = evidence(alert.evidence).slice(0, 2).join(" ");
  item.querySelector(".why").textContent = [ruleOf(alert), `score ${score(alert.score)}`, why].filter(Boolean).join(" · ");
  item.querySelector(".pinned").hidden = alert.pinned_utc_ns === null;
  const thumb = item.querySelector(".thumb");
  const file = alert.crop ?? alert.snapshot ?? "";
  if (thumb.dataset.file === file) return;
  thumb.dataset.file = file;
  if (!file) return thumb.replaceChildren("no image");
  const image = make("img", {alt: "", loading: "lazy", src: snapshotUrl(file)});
  image.addEventListener("error", () => thumb.replaceChildren("no image"));
  thumb.replaceChildren(image);
}

export function showEvents(events) {
  const create = () => make("li", {}, make("span"), make("b"), make("span", {className: "camera"}));
  follow(byId("events"), [...events].reverse(), (event) => event.id, create, (item, event) => {
    item.dataset.severity = event.severity;
    item.children[0].replaceChildren(timeElement(event.time_utc_ns));
    const text = happened(event);
    item.children[1].replaceChildren(event.alert ? make("a", {href: alertUrl(event.alert)}, text) : text);
    item.children[2].textContent = event.by ? `${event.camera} · ${event.by}` : event.camera;
  });
  byId("no-events").hidden = events.length > 0;
  byId("no-events").textContent = "No events yet.";
}

// `alertOf`: the alert of a track by its ULID, where it has one.
export function showTracks(tracks, alertOf = new Map()) {
  const create = () => make("tr", {}, ...Array.from({length: 6}, () => make("td")));
  const rows = tracks.map((track) => ({...track, alert: alertOf.get(track.ulid)}));
  follow(byId("tracks"), rows, (track) => track.ulid, create, (row, track) => {
    const [seen, camera, label, state, points, span] = row.children;
    const [first, last] = [track.first_seen[5], track.last_seen[5]]; // FrameRef: received_utc_ns
    row.dataset.state = track.state;
    seen.replaceChildren(timeElement(last));
    camera.textContent = track.camera;
    const target = [make("i", {className: "dot"}), `${name(track.label)} #${track.id}`];
    label.replaceChildren(...(track.alert ? [make("a", {href: alertUrl(track.alert)}, ...target)] : target));
    row.style.setProperty("--label", colour(track.label));
    state.textContent = track.state;
    points.textContent = score(track.score);
    span.textContent = duration((last - first) / 1e9);
    points.className = span.className = "number";
  });
  byId("no-tracks").hidden = tracks.length > 0;
  byId("no-tracks").textContent = "No tracks yet.";
}
