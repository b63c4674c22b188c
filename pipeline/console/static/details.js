// One alert: its images, its details, and its review; and the dialog that shows it.

import {SEVERITIES, VERDICTS, alertUrl, change, isWaiting, numbers} from "./alert.js";
import {request} from "./request.js";
import {evidence, make, name, score, timeElement} from "./text.js";

const MAX_NOTE_LENGTH = 500;
const byId = (id) => document.getElementById(id);
export const snapshotUrl = (file) => `/api/v1/snapshots/${encodeURIComponent(file)}`;

// A link to the alert's clip, once there is one.
function clipElement({id, state}) {
  const path = `/alerts/${encodeURIComponent(id)}/clip`;
  const element = make("span", {}, state === "active" ? "when the alert has ended" : "none");
  const show = ({clip, state: stage, reason}) => {
    if (stage === "pending" && reason) element.replaceChildren(`not here yet: ${reason}`);
    if (stage === "failed") element.replaceChildren(`none: ${reason}`);
    if (clip === null) return;
    const length = `${Math.round(clip.last_pts_s - clip.first_pts_s)} s`;
    const link = make("a", {href: `/api/v1${path}`, target: "_blank"}, length);
    element.replaceChildren(link, clip.reason && `, incomplete: ${clip.reason}`);
  };
  request(`${path}.json`).then(show, (error) => element.replaceChildren(error.message));
  return element;
}

// The updated alert arrives through the event stream, as in every browser.
export function review(id, action, content) {
  const body = content && JSON.stringify(content);
  return request(`/alerts/${encodeURIComponent(id)}/${action}`, {method: "POST", body});
}

// Fills the elements `details-…` of a page.
export class AlertView {
  #shown = null; // the alert
  #clip = null; // the element that links to its clip
  #parts = null; // of its review

  constructor(showCamera) {
    this.showCamera = showCamera;
  }

  show(alert) {
    this.#shown = alert;
    this.#showTitle();
    this.#showImages();
    this.#clip = clipElement(alert);
    this.#showReview();
    this.#showFacts();
  }

  // There is a clip now.
  showClip() {
    this.#clip = clipElement(this.#shown);
    this.#showFacts();
  }

  focusReview() {
    this.#parts.verdicts[0].focus();
  }

  receive(alerts) {
    const before = this.#shown;
    this.#shown = alerts.find((alert) => alert.id === before.id) ?? before;
    if (JSON.stringify(this.#shown) === JSON.stringify(before)) return;
    this.#showTitle();
    if (this.#shown.snapshot !== before.snapshot) this.#showImages();
    if (this.#shown.state !== before.state) this.#clip = clipElement(this.#shown);
    this.#markReview();
    this.#showFacts();
  }

  #showTitle() {
    const {label, camera} = this.#shown;
    byId("details-title").textContent = `${name(label)} ${numbers(this.#shown)} on ${camera}`;
  }

  #showImages() {
    const {camera, snapshot, crop} = this.#shown;
    const images = [snapshot && [snapshot, `Snapshot of ${camera}`, ""], crop && [crop, "The target", "crop"]].filter(Boolean);
    const shown = images.map(([file, alt, className]) => make("img", {src: snapshotUrl(file), alt, className}));
    byId("details-image").replaceChildren(...(shown.length ? shown : [make("p", {className: "empty"}, "No snapshot.")]));
  }

  #showReview() {
    const problem = make("p", {className: "problem", hidden: true, role: "alert"});
    const say = async (action, content) => {
      problem.hidden = true;
      try {
        await review(this.#shown.id, action, content);
      } catch (error) {
        problem.textContent = error.message;
        problem.hidden = false;
      }
    };
    const button = (text, data, act) => {
      const made = make("button", {type: "button", data}, text);
      made.addEventListener("click", act);
      return made;
    };
    const note = make("input", {id: "note", type: "text", maxLength: MAX_NOTE_LENGTH, placeholder: "Note to the verdict"});
    note.ariaLabel = "Note";
    note.value = this.#shown.note ?? "";
    note.addEventListener("change", () => {
      if (this.#shown.verdict) say("verdict", {verdict: this.#shown.verdict, note: note.value});
    });
    const give = (verdict) => say("verdict", {verdict, note: verdict && note.value});
    const verdicts = Object.entries(VERDICTS).map(([verdict, text]) => button(text, {verdict}, () => give(verdict)));
    this.#parts = {
      acknowledge: button("Acknowledge", {action: "acknowledge"}, () => say("acknowledge")),
      reopen: button("Reopen", {action: "reopen"}, () => say("reopen")),
      pin: button("Pin", {action: "pin"}, () => say(this.#shown.pinned_utc_ns === null ? "pin" : "unpin")),
      undo: button("Undo", {action: "undo"}, () => give(null)),
      verdicts,
      note,
    };
    const {acknowledge, reopen, pin, undo} = this.#parts;
    pin.title = "A pinned alert is kept with its clip and files, however old it gets";
    byId("details-review").replaceChildren(
      make("div", {className: "row"}, acknowledge, reopen, pin),
      make("div", {className: "row reasons", role: "group", ariaLabel: "Verdict"}, "It was ", ...verdicts, undo),
      note,
      problem,
    );
    this.#markReview();
  }

  #markReview() {
    const {acknowledge, reopen, pin, undo, verdicts, note} = this.#parts;
    const {verdict, pinned_utc_ns: pinned} = this.#shown;
    pin.textContent = pinned === null ? "Pin" : "Unpin";
    pin.ariaPressed = String(pinned !== null);
    const waits = isWaiting(this.#shown);
    acknowledge.textContent = waits ? "Acknowledge" : "Acknowledged";
    acknowledge.disabled = !waits;
    reopen.hidden = waits && verdict === null;
    undo.hidden = verdict === null;
    for (const button of verdicts) button.ariaPressed = String(button.dataset.verdict === verdict);
    if (document.activeElement !== note) note.value = this.#shown.note ?? note.value;
  }

  #showFacts() {
    const alert = this.#shown;
    const show = make("button", {type: "button"}, "Show the camera");
    show.addEventListener("click", () => this.showCamera(alert.camera));
    const when = (term, ns) => (ns === null ? [] : [[term, timeElement(ns)]]);
    const text = change(alert);
    const severity = (value) => SEVERITIES[value] ?? value;
    const rows = [
      ["Severity", severity(alert.severity)],
      ...(alert.highest_severity === alert.severity ? [] : [["Highest", severity(alert.highest_severity)]]),
      ["Rule", alert.rule ?? "none: the default"],
      ["State", alert.state === "active" ? "Active" : "Ended"],
      ...(text ? [["Change", text]] : []),
      ["Opened", timeElement(alert.opened_utc_ns)],
      ...when("Escalated", alert.escalated_utc_ns),
      ["Last seen", timeElement(alert.last_seen_utc_ns)],
      ...when("Ended", alert.ended_utc_ns),
      ...when("Acknowledged", alert.acknowledged_utc_ns),
      ...when(alert.verdict === "uav" ? "Confirmed" : "Dismissed", alert.reviewed_utc_ns),
      ...(alert.verdict ? [["Verdict", [VERDICTS[alert.verdict], alert.note].filter(Boolean).join(": ")]] : []),
      ...when("Pinned", alert.pinned_utc_ns),
      ["Score", score(alert.score)],
      ["Evidence", evidence(alert.evidence).join(", ") || "none"],
      ["Clip", this.#clip],
      ["Alert", make("a", {href: alertUrl(alert.id)}, make("code", {}, alert.id))],
      ["Tracks", numbers(alert, Infinity)],
      ["Camera", make("span", {}, `${alert.camera} `, show)],
    ];
    byId("details-list").replaceChildren(
      ...rows.flatMap(([term, what]) => [make("dt", {}, term), make("dd", {}, what)]),
    );
  }
}

export class Details {
  constructor(showCamera) {
    this.view = new AlertView((camera) => {
      byId("details").close();
      showCamera(camera);
    });
  }

  // `isReviewing` sets the focus on the verdicts.
  open(alert, isReviewing = false) {
    this.view.show(alert);
    byId("details").showModal();
    if (isReviewing) this.view.focusReview();
  }

  receive(alerts) {
    if (byId("details").open) this.view.receive(alerts);
  }
}
