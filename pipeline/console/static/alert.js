// What is said of an alert.

import {clock} from "./clock.js";
import {duration, name} from "./text.js";

export const SEVERITIES = {alarm: "Alarm", warning: "Warning", info: "Information"};
export const VERDICTS = {
  uav: "Confirmed UAV",
  bird: "Bird",
  aircraft: "Aircraft",
  insect: "Insect",
  reflection: "Reflection",
  other: "Other",
};
export const alertUrl = (id) => `/alert/${encodeURIComponent(id)}`;
const SHOWN = 3; // track numbers in a title

// Nobody acknowledged it; it may have ended.
export const isWaiting = (alert) => alert.acknowledged_utc_ns === null;

const MOST = 200; // the server lists no more of them
export const count = (waiting) => (waiting < MOST ? String(waiting || "") : `${MOST}+`);

// Those on top: not acknowledged, or active and not dismissed.
export const isOpen = (alert) => isWaiting(alert) || (alert.state === "active" && alert.dismissed_utc_ns === null);

// Unacknowledged ones first, alarms before warnings; equal ones stay newest first.
export const byUrgency = (a, b) => isWaiting(b) - isWaiting(a) || rank(a) - rank(b);
const rank = (alert) => Object.keys(SEVERITIES).indexOf(alert.highest_severity);

// A second camera's tracks have its name.
export function numbers(alert, most = SHOWN) {
  const hidden = alert.tracks.length - most;
  const shown = alert.tracks.slice(-most).map(({camera, id}) => `${camera === alert.camera ? "" : `${camera} `}#${id}`);
  return `${shown.join(" ")}${hidden > 0 ? ` +${hidden}` : ""}`;
}

export function standing(alert) {
  if (alert.verdict !== null && !isWaiting(alert)) {
    return alert.verdict === "uav" ? "Confirmed" : `Dismissed: ${alert.verdict}`;
  }
  if (alert.state === "ended") return isWaiting(alert) ? "Gone, not seen" : "Ended";
  return `${SEVERITIES[alert.severity]}${isWaiting(alert) ? "" : " · acknowledged"}`;
}

// How its label changed, or that it escalated otherwise: its target approached, or a rule applies; empty: neither.
export function change(alert) {
  const {opened_as: first, highest_label: highest, label} = alert;
  const now = alert.state === "active" ? "now" : "then";
  if (label !== first) return `opened as ${name(first)}, ${now} ${name(label)}`;
  if (highest !== label) return `was ${name(highest)}, ${now} ${name(label)}`;
  return alert.escalated_utc_ns === null ? "" : "escalated";
}

// Empty for the default, which a site without rules has.
export const ruleOf = (alert) => (alert.rule === null ? "" : `rule ${alert.rule}`);

export function span(alert) {
  if (alert.state === "active") return `for ${duration(clock.ageS(alert.opened_utc_ns))}`;
  return `lasted ${duration((alert.ended_utc_ns - alert.opened_utc_ns) / 1e9)}`;
}
