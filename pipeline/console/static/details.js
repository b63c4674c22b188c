// The dialog of one alert: its snapshot, its details, and its review.

import {request} from "./request.js";
import {evidence, make, name, score, timeElement} from "./text.js";

export const SEVERITIES = {alarm: "Alarm", warning: "Warning", info: "Information"};
const REASONS = {bird: "Bird", aircraft: "Aircraft", insect: "Insect", reflection: "Reflection", other: "Other"};
const byId = (id) => document.getElementById(id);
export const snapshotUrl = (file) => `/api/v1/snapshots/${encodeURIComponent(file)}`;

// A link to the alert's clip, once there is one.
function clipElement({id, state}) {
  const path = `/alerts/${encodeURIComponent(id)}/clip`;
  const element = make("span", {}, state === "active" ? "when the alert has ended" : "none");
  const show = ({clip}) => {
    if (clip === null) return;
    const length = `${Math.round(clip.last_pts_s - clip.first_pts_s)} s`;
    const link = make("a", {href: `/api/v1${path}`, target: "_blank"}, length);
    element.replaceChildren(link, clip.reason && `, incomplete: ${clip.reason}`);
  };
  request(`${path}.json`).then(show, (error) => element.replaceChildren(error.message));
  return element;
}

// The updated alert arrives through the event stream, as in every browser.
export function review(id, verdict, reason) {
  const body = reason && JSON.stringify({reason});
  return request(`/alerts/${encodeURIComponent(id)}/${verdict}`, {method: "POST", body});
}

export class Details {
  #shown = null; // the alert
  #clip = null; // the element that links to its clip

  constructor(showCamera) {
    this.showCamera = showCamera;
  }

  // `isDismissing` sets the focus on the reasons to dismiss the alert.
  open(alert, isDismissing = false) {
    this.#shown = alert;
    byId("details-title").textContent = `${name(alert.label)} on ${alert.camera}`;
    const image = alert.snapshot
      ? make("img", {src: snapshotUrl(alert.snapshot), alt: `Snapshot of ${alert.camera}`})
      : make("p", {className: "empty"}, "No snapshot.");
    byId("details-image").replaceChildren(image);
    this.#clip = clipElement(alert);
    this.#showReview();
    this.#showFacts();
    byId("details").showModal();
    if (isDismissing) byId("details-review").querySelector("[data-reason]").focus();
  }

  receive(alerts) {
    if (!byId("details").open) return;
    const before = JSON.stringify(this.#shown);
    this.#shown = alerts.find((alert) => alert.id === this.#shown.id) ?? this.#shown;
    if (JSON.stringify(this.#shown) === before) return;
    this.#markReview();
    this.#showFacts();
  }

  #showReview() {
    const problem = make("p", {className: "problem", hidden: true, role: "alert"});
    const say = async (verdict, reason) => {
      problem.hidden = true;
      try {
        await review(this.#shown.id, verdict, reason);
      } catch (error) {
        problem.textContent = error.message;
        problem.hidden = false;
      }
    };
    const acknowledge = make("button", {type: "button", data: {verdict: "acknowledge"}});
    acknowledge.addEventListener("click", () => say("acknowledge"));
    const reasons = Object.entries(REASONS).map(([reason, text]) => {
      const button = make("button", {type: "button", data: {verdict: "dismiss", reason}}, text);
      button.addEventListener("click", () => say("dismiss", reason));
      return button;
    });
    const dismiss = make("div", {className: "reasons", role: "group", ariaLabel: "Dismiss as"}, "Dismiss as ", ...reasons);
    byId("details-review").replaceChildren(acknowledge, dismiss, problem);
    this.#markReview();
  }

  #markReview() {
    const {acknowledged_utc_ns, dismissed_as} = this.#shown;
    const [acknowledge, dismiss] = byId("details-review").children;
    acknowledge.textContent = acknowledged_utc_ns === null ? "Acknowledge" : "Acknowledged";
    acknowledge.disabled = acknowledged_utc_ns !== null;
    for (const button of dismiss.children) button.ariaPressed = String(button.dataset.reason === dismissed_as);
  }

  #showFacts() {
    const alert = this.#shown;
    const show = make("button", {type: "button"}, "Show the camera");
    show.addEventListener("click", () => {
      byId("details").close();
      this.showCamera(alert.camera);
    });
    const when = (term, ns) => (ns === null ? [] : [[term, timeElement(ns)]]);
    const rows = [
      ["Severity", SEVERITIES[alert.severity] ?? alert.severity],
      ["State", alert.state === "active" ? "Active" : "Ended"],
      ["Opened", timeElement(alert.opened_utc_ns)],
      ["Last seen", timeElement(alert.last_seen_utc_ns)],
      ...when("Ended", alert.ended_utc_ns),
      ...when("Acknowledged", alert.acknowledged_utc_ns),
      ...when("Dismissed", alert.dismissed_utc_ns),
      ["Score", score(alert.score)],
      ["Evidence", evidence(alert.evidence).join(", ") || "none"],
      ["Clip", this.#clip],
      ["Alert", make("code", {}, alert.id)],
      ["Track", make("code", {}, alert.track)],
      ["Camera", make("span", {}, `${alert.camera} `, show)],
    ];
    byId("details-list").replaceChildren(
      ...rows.flatMap(([term, what]) => [make("dt", {}, term), make("dd", {}, what)]),
    );
  }
}
