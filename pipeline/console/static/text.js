// Formatting of labels, numbers and times, and creation of elements.  Text is always inserted as text, never as markup.

const COLOURED = new Set(["uav", "unknown", "bird", "airplane", "helicopter"]); // labels with a colour of their own
const KINDS = {
  "track.confirmed": "confirmed",
  "track.labelled": "classified",
  "track.lost": "lost",
  "camera.up": "Camera up",
  "camera.down": "Camera down",
  "camera.blind": "Camera blind",
};
const ALERT_KINDS = {
  "alert.opened": "Alert",
  "alert.escalated": "Escalated",
  "alert.lowered": "Lowered",
  "alert.ended": "Alert ended",
  "alert.acknowledged": "Acknowledged",
  "alert.reopened": "Reopened",
};

// As a value of CSS; on a canvas over an image: imageColour.
export function colour(label) {
  return `var(--${COLOURED.has(label) ? label : "other"})`;
}

export function name(label) {
  return label === "uav" ? "UAV" : label.charAt(0).toUpperCase() + label.slice(1);
}

export function isTarget(label) {
  return label === "uav" || label === "unknown";
}

const target = (track) => `${name(track.label)} #${track.id}`;

export function happened(event) {
  if (event.kind.startsWith("alert.")) return `${alertHappened(event)}${event.track ? `: ${target(event.track)}` : ""}`;
  const kind = KINDS[event.kind] ?? event.kind;
  if (event.cause) return `${kind}: ${event.cause}`;
  return event.track ? `${target(event.track)} ${kind}` : kind;
}

function alertHappened({kind, was, reason, verdict, rule}) {
  if (kind === "alert.reviewed") return verdict ? `Verdict ${name(verdict)}` : "Verdict withdrawn";
  const approaches = reason === "approach" ? ", approaches" : "";
  const why = was ? ` from ${name(was)}` : approaches || (rule ? `, rule ${rule}` : "");
  return `${ALERT_KINDS[kind] ?? kind}${why}`;
}

const milliseconds = (ns) => ns / 1e6;

function clockTime(ns) {
  return new Date(milliseconds(ns)).toLocaleTimeString("en-GB");
}

// With the date, where that is not today's, and the year, where that is another.
export function moment(ns) {
  const [date, now] = [new Date(milliseconds(ns)), new Date()];
  if (date.toDateString() === now.toDateString()) return clockTime(ns);
  const day = date.toLocaleDateString("en-CA");
  return `${date.getFullYear() === now.getFullYear() ? day.slice(5) : day} ${clockTime(ns)}`;
}

export function timeElement(ns) {
  const time = new Date(milliseconds(ns)).toISOString();
  return make("time", {dateTime: time, title: time}, moment(ns));
}

export function duration(seconds) {
  if (seconds < 0) return "0 s";
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} days`;
}

export function evidence(values) {
  const sorted = Object.entries(values).sort((a, b) => b[1] - a[1]);
  return sorted.map(([label, value]) => `${label} ${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(1)}`);
}

export function score(value) {
  return value.toFixed(2);
}

export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "data") Object.assign(element.dataset, value);
    else element[key] = value;
  }
  element.append(...children);
  return element;
}

// Updates a list's children to `items`, keeping the elements (with focus and loaded images) of items that remain.
// `fill(element, item)` is called only for changed items.
export function follow(list, items, key, create, fill) {
  const old = new Map([...list.children].map((child) => [child.dataset.key, child]));
  let before = list.firstElementChild;
  for (const item of items) {
    const id = key(item);
    const element = old.get(id) ?? create(item);
    old.delete(id);
    const content = JSON.stringify(item);
    if (element.content !== content) {
      element.content = content;
      element.dataset.key = id;
      fill(element, item);
    }
    if (element === before) before = before.nextElementSibling;
    else list.insertBefore(element, before);
  }
  for (const element of old.values()) element.remove();
}
