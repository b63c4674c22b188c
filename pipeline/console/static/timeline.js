// A day of every camera: when it opened alerts, and when it was blind.

import {alertUrl} from "./alert.js";
import {duration, moment} from "./text.js";
import {draw} from "./svg.js";

const ROW_PX = 26;
const AXIS_PX = 18;
const NAME_PX = 120;
const MIN_PX = 2; // so that a short one is visible
const HOUR_NS = 3600e9;
export const CAUSES = {
  offline: "var(--chart-8)", overload: "var(--chart-2)", corrupt: "var(--chart-1)", failed: "var(--chart-4)",
  frozen: "var(--chart-7)", saturated: "var(--chart-6)", tampered: "var(--chart-5)", budget: "var(--chart-3)",
};

export function drawTimeline(box, timeline) {
  box.redraw = () => box.replaceChildren(...(box.clientWidth ? [figure(box.clientWidth, timeline)] : []));
  box.redraw();
}

function figure(width, {since_utc_ns: since, until_utc_ns: until, step_s, cameras}) {
  const across = Math.max(160, width - NAME_PX - 12);
  const x = (ns) => NAME_PX + ((ns - since) / (until - since)) * across;
  const height = cameras.length * ROW_PX + AXIS_PX;
  const rows = cameras.map((line, i) => cameraRow(line, i * ROW_PX, x, since, until, step_s));
  const label = cameras.map(({camera, alerts, spells}) => `${camera}: ${sum(alerts)} alerts, blind ${times(sum2(spells))}`);
  return draw(
    "svg",
    {viewBox: `0 0 ${width} ${height}`, width: "100%", height, role: "group", "aria-label": label.join("; ")},
    ...rows,
    ...hours(since, until, x, height, across),
  );
}

const sum = (counts) => counts.reduce((total, count) => total + count.alerts, 0);
const sum2 = (spells) => spells.reduce((total, spell) => total + spell.times, 0);
const times = (count) => (count === 1 ? "once" : `${count} times`);

function cameraRow({camera, alerts, blind}, top, x, since, until, step_s) {
  const name = draw("text", {x: 0, y: top + 17, class: "name"}, camera.length > 17 ? `${camera.slice(0, 16)}…` : camera);
  name.append(draw("title", {}, camera));
  const ground = draw("rect", {x: x(since), y: top + 3, width: x(until) - x(since), height: ROW_PX - 6, class: "ground"});
  const gaps = blind.map(({since_utc_ns: from, until_utc_ns: to, cause}) =>
    draw(
      "rect",
      {x: x(from), y: top + 3, width: Math.max(MIN_PX, x(to) - x(from)), height: ROW_PX - 6, class: "blind", fill: CAUSES[cause], "data-cause": cause},
      draw("title", {}, `${camera} blind: ${cause}, ${moment(from)} to ${moment(to)}, ${duration((to - from) / 1e9)}`),
    ));
  const marks = alerts.map((count) => mark(camera, count, top, x, step_s));
  return draw("g", {"data-camera": camera}, name, ground, ...gaps, ...marks);
}

// A step of the time line: its one alert, or the list of them.  The table below is how the keyboard reaches them.
function mark(camera, {since_utc_ns: from, alerts, alarms, newest}, top, x, step_s) {
  const to = from + step_s * 1e9;
  const time = (ns) => new Date(ns / 1e6).toISOString();
  const list = `/history?${new URLSearchParams({camera, since: time(from), before: time(to)})}`;
  const text = `${camera} ${moment(from)}: ${alerts} ${alerts === 1 ? "alert" : "alerts"}, ${alarms} of them alarms`;
  const height = Math.min(ROW_PX - 8, 8 + 2 * alerts);
  return draw(
    "a",
    {href: alerts === 1 ? alertUrl(newest) : list, tabindex: -1, "aria-label": text},
    draw(
      "rect",
      {x: x(from), y: top + ROW_PX - 4 - height, width: Math.max(3, x(to) - x(from) - 0.5), height, class: alarms ? "alarm" : "warning"},
      draw("title", {}, text),
    ),
  );
}

function hours(since, until, x, height, across) {
  const every = across < 500 ? 6 : across < 900 ? 3 : 1;
  const first = new Date(since / 1e6);
  first.setMinutes(0, 0, 0);
  const found = [];
  for (let ns = first.getTime() * 1e6 + HOUR_NS; ns < until; ns += HOUR_NS) {
    const time = new Date(ns / 1e6);
    if (time.getHours() % every) continue;
    const text = time.toLocaleTimeString("en-GB", {hour: "2-digit", minute: "2-digit"});
    found.push(draw("line", {x1: x(ns), x2: x(ns), y1: 0, y2: height - AXIS_PX, class: "hour"}));
    if (x(ns) > NAME_PX + 14 && x(ns) < x(until) - 14) {
      found.push(draw("text", {x: x(ns), y: height - 4, "text-anchor": "middle"}, text));
    }
  }
  return found;
}

// "blind 12 times since 21:59 (offline 8, frozen 4), 3 min in all"
export function spellText({since_utc_ns: since, until_utc_ns: until, times: count, blind_s, causes, is_open}) {
  const kinds = Object.entries(causes).sort((a, b) => b[1] - a[1]);
  const many = kinds.length > 1 || count > 1;
  const why = kinds.map(([cause, number]) => (many && kinds.length > 1 ? `${cause} ${number}` : cause)).join(", ");
  const till = is_open ? "" : ` to ${moment(until)}`;
  if (count === 1) return `blind ${is_open ? "since" : "from"} ${moment(since)}${till} (${why}), ${duration(blind_s)}`;
  return `blind ${count} times since ${moment(since)}${is_open ? "" : `, last at ${moment(until)}`} (${why}), ${duration(blind_s)} in all`;
}
