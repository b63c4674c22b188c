// Latency, budget, dropped frames and blind time over the last ten minutes, hour or day.

import {clock} from "./clock.js";
import {CAUSES, STAGES} from "./meanings.js";
import {drawBudget, drawHeat, milliseconds, STAGE_COLOURS} from "./plots.js";
import {request} from "./request.js";
import {duration, make} from "./text.js";
import {connect} from "./top.js";

const PERIOD_MS = 5000;
const NAMES = {capture_to_track: "Capture to track", capture_to_alert: "Capture to alert"};
const byId = (id) => document.getElementById(id);
let chosen = "10m";
let requests = 0; // a late response to an earlier request is ignored

async function load() {
  const number = ++requests;
  let report = null;
  let problem = "";
  try {
    report = await request(`/latency?window=${chosen}`);
    problem = report.error ? `No new samples: ${report.error}` : "";
  } catch (error) {
    problem = error.message;
  }
  if (number !== requests) return;
  byId("problem").hidden = !problem;
  if (byId("problem").textContent !== problem) byId("problem").textContent = problem;
  if (report) show(report);
}

function show(report) {
  const age = report.sampled_utc_ns === null ? null : clock.ageS(report.sampled_utc_ns);
  byId("sampled").textContent =
    age === null ? "Waiting for samples …" : `Sampled ${duration(age)} ago, over ${duration(report.covered_s)}`;
  showTiles(report);
  drawBudget(byId("budget"), report);
  showStages(report.stages);
  drawHeat(byId("heat"), report);
  showLosses(report);
}

function showTiles({end_to_end, objective_s}) {
  const tiles = end_to_end.map((part) => {
    const values = ["p50", "p95", "p99"].map((share) => {
      const value = part[`${share}_s`];
      const isOver = part.name === "capture_to_track" && value !== null && value > objective_s;
      return make("span", {data: {mood: isOver ? "bad" : ""}}, make("b", {}, milliseconds(value)), share);
    });
    const note = part.name === "capture_to_track" ? `objective ${milliseconds(objective_s)}` : "";
    const count = `${part.count.toLocaleString("en")} ${part.name === "capture_to_track" ? "frames" : "alerts"}`;
    return make(
      "div",
      {className: "tile wide", data: {name: part.name}},
      make("h3", {}, NAMES[part.name]),
      make("p", {className: "values"}, ...values),
      make("p", {className: "dim"}, [count, note].filter(Boolean).join(" · ")),
    );
  });
  byId("tiles").replaceChildren(...tiles);
}

function showStages(stages) {
  const rows = stages.map((stage) => {
    const dot = make("i", {className: "dot"});
    dot.style.background = STAGE_COLOURS[stage.name];
    const values = ["mean_s", "p50_s", "p95_s", "p99_s"].map((key) => make("td", {className: "number"}, milliseconds(stage[key])));
    const count = make("td", {className: "number"}, stage.count.toLocaleString("en"));
    return make("tr", {data: {stage: stage.name}}, make("td", {}, dot, stage.name), count, ...values, make("td", {className: "meaning"}, STAGES[stage.name] ?? ""));
  });
  byId("stages").replaceChildren(...rows);
}

function showLosses({losses, sampled_utc_ns}) {
  const rows = losses.map((loss) => {
    const values = [loss.dropped.toLocaleString("en"), loss.failed.toLocaleString("en"), duration(loss.blind_s)];
    const cells = values.map((text) => make("td", {className: "number"}, text));
    return make("tr", {}, make("td", {}, loss.camera), make("td", {}, loss.cause), ...cells, make("td", {className: "meaning"}, CAUSES[loss.cause] ?? ""));
  });
  byId("losses").replaceChildren(...rows);
  byId("no-losses").hidden = rows.length > 0;
  byId("no-losses").textContent = sampled_utc_ns === null ? "Waiting for samples …" : "None: every frame was processed.";
}

byId("windows").addEventListener("click", (event) => {
  if (!event.target.dataset.window) return;
  chosen = event.target.dataset.window;
  for (const button of byId("windows").children) button.ariaPressed = String(button === event.target);
  load();
});
connect();
load();
setInterval(load, PERIOD_MS);
