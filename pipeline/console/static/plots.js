// SVG plots of the latency page: the latency budget, and the heat map.

import {draw} from "./svg.js";

export const STAGE_COLOURS = {
  decode: "var(--chart-1)", transport: "var(--chart-2)", wait: "var(--chart-3)", inference: "var(--chart-4)",
  mask: "var(--chart-5)", track: "var(--chart-6)", alert: "var(--chart-7)", sink: "var(--chart-8)",
};
const BUDGETED = ["decode", "transport", "wait", "inference", "mask", "track"]; // the stages of capture to track

export function milliseconds(seconds) {
  if (seconds === null) return "–";
  const ms = seconds * 1000;
  if (ms >= 10_000) return `${seconds.toFixed(1)} s`;
  return `${ms >= 100 ? ms.toFixed(0) : ms >= 1 ? ms.toFixed(1) : ms.toFixed(2)} ms`;
}

function drawing(box, height, label, ...children) {
  const width = Math.max(280, box.clientWidth);
  return draw("svg", {viewBox: `0 0 ${width} ${height}`, width: "100%", height, role: "img", "aria-label": label}, ...children);
}

const empty = (text) => Object.assign(document.createElement("p"), {className: "empty", textContent: text});

// A stacked bar of the stages' p95, with marks at the objective and at the p95 of capture to track.
export function drawBudget(box, {stages, end_to_end, objective_s}) {
  const parts = stages.filter((stage) => BUDGETED.includes(stage.name) && stage.p95_s !== null);
  if (!parts.length) return box.replaceChildren(empty("No frame was processed."));
  const total = parts.reduce((sum, stage) => sum + stage.p95_s, 0);
  const whole = end_to_end.find((part) => part.name === "capture_to_track").p95_s;
  const most = Math.max(total, objective_s, whole ?? 0) * 1.08;
  const width = Math.max(280, box.clientWidth);
  const x = (seconds) => (seconds / most) * width;
  const marks = [["objective", objective_s, "mark"], ["p95 capture to track", whole, "mark dashed"]];
  let from = 0;
  const bars = parts.map((stage) => {
    const bar = draw(
      "rect",
      {x: x(from), y: 22, width: Math.max(0.5, x(stage.p95_s)), height: 26, fill: STAGE_COLOURS[stage.name]},
      draw("title", {}, `${stage.name} p95 ${milliseconds(stage.p95_s)}`),
    );
    from += stage.p95_s;
    return bar;
  });
  const lines = marks.filter(([, value]) => value !== null).flatMap(([text, value, kind], i) => [
    draw("line", {x1: x(value), x2: x(value), y1: 16, y2: 54, class: kind}),
    draw("text", {x: x(value) + (x(value) > width / 2 ? -4 : 4), y: i ? 68 : 12, "text-anchor": x(value) > width / 2 ? "end" : "start"}, `${text} ${milliseconds(value)}`),
  ]);
  const label = `${parts.map((s) => `${s.name} ${milliseconds(s.p95_s)}`).join(", ")}; objective ${milliseconds(objective_s)}`;
  box.replaceChildren(drawing(box, 74, label, draw("rect", {x: 0, y: 22, width, height: 26, class: "ground"}), ...bars, ...lines));
}

// Columns are times, rows are the histogram's buckets; columns without samples are hatched.
export function drawHeat(box, {columns, edges_s, from_utc_ns, step_s, objective_s}) {
  const rows = edges_s.length - 1;
  if (rows < 1) return box.replaceChildren(empty("No frame was processed."));
  const [left, bottom, top, height] = [64, 20, 8, Math.max(110, Math.min(260, rows * 16))];
  const width = Math.max(280, box.clientWidth);
  const [wide, high] = [(width - left) / columns.length, height / rows];
  const most = Math.max(...columns.map((column) => (column ? Math.max(0, ...column) : 0)), 1);
  const cells = columns.flatMap((column, i) => {
    if (column === null) return [draw("rect", {x: left + i * wide, y: top, width: wide, height, class: "unsampled"})];
    return column.flatMap((count, row) => {
      if (!count) return [];
      const strength = (0.15 + 0.85 * Math.sqrt(count / most)).toFixed(3);
      const range = `${milliseconds(edges_s[row])} to ${edges_s[row + 1] === null ? "more" : milliseconds(edges_s[row + 1])}`;
      const place = {x: left + i * wide, y: top + height - (row + 1) * high, width: wide + 0.3, height: high + 0.3};
      return [draw("rect", {...place, class: "heat", "fill-opacity": strength}, draw("title", {}, `${count} frames, ${range}`))];
    });
  });
  const every = Math.ceil(rows / (height / 18));
  const scale = edges_s.flatMap((edge, i) => {
    if (i % every || edge === null) return [];
    return [draw("text", {x: left - 6, y: top + height - i * high + 4, "text-anchor": "end"}, milliseconds(edge))];
  });
  const times = [0, 0.25, 0.5, 0.75, 1].map((share) => {
    const date = new Date(from_utc_ns / 1e6 + share * columns.length * step_s * 1000);
    const anchor = share === 0 ? "start" : share === 1 ? "end" : "middle";
    const text = date.toLocaleTimeString("en-GB").slice(0, 5);
    return draw("text", {x: left + share * (width - left), y: top + height + 15, "text-anchor": anchor}, text);
  });
  const ground = draw("rect", {x: left, y: top, width: width - left, height, class: "ground"});
  const label = "Heat map of the time from capture to track; the table above has the figures";
  box.replaceChildren(drawing(box, top + height + bottom, label, ground, ...cells, ...objective(), ...scale, ...times));

  function objective() {
    const row = edges_s.findIndex((edge, i) => i < rows && edge <= objective_s && (edges_s[i + 1] ?? Infinity) >= objective_s);
    if (row < 0) return [];
    const upper = edges_s[row + 1] ?? objective_s;
    const share = upper > edges_s[row] ? (objective_s - edges_s[row]) / (upper - edges_s[row]) : 0;
    const y = top + height - (row + share) * high;
    return [draw("line", {x1: left, x2: width, y1: y, y2: y, class: "mark"})];
  }
}
