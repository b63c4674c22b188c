// The status page: versions, engine, checkpoint with its model card, configuration, API.

import {request} from "./request.js";
import {make} from "./text.js";
import {connect} from "./top.js";

const byId = (id) => document.getElementById(id);

function list(element, rows) {
  const shown = rows.filter(([, what]) => what !== "" && what !== undefined && what !== null);
  element.replaceChildren(...shown.flatMap(([term, what]) => [make("dt", {}, term), make("dd", {}, String(what))]));
}

// Formats an object like YAML.
function lines(value, depth = 0) {
  const indent = "  ".repeat(depth);
  if (Array.isArray(value)) {
    return value.flatMap((item) => {
      if (item === null || typeof item !== "object") return [`${indent}- ${JSON.stringify(item)}`];
      const [first, ...rest] = lines(item, depth + 1);
      return [`${indent}- ${(first ?? "[]").trimStart()}`, ...rest];
    });
  }
  return Object.entries(value).flatMap(([key, item]) => {
    const isEmpty = item !== null && typeof item === "object" && !Object.keys(item).length;
    if (item === null || typeof item !== "object") return [`${indent}${key}: ${item ?? "default"}`];
    return isEmpty ? [`${indent}${key}: none`] : [`${indent}${key}:`, ...lines(item, depth + 1)];
  });
}

function show(status) {
  const {build, checkpoint} = status;
  list(byId("running"), [
    ["dasnet", status.version],
    ["Engine", build.engine ?? "unknown: not reported by the workers yet"],
    ["Model", build.model],
    ["Python", status.python],
    ["System", status.system],
    ...Object.entries(status.packages),
  ]);
  const {network, classes, preprocessing, decision, training, evaluation} = checkpoint.described;
  const trained = Object.entries(training ?? {}).filter(([key]) => key !== "config"); // too long to show
  const flat = (part) => part && Object.entries(part).map(([key, value]) => `${key} ${JSON.stringify(value)}`).join(", ");
  list(byId("checkpoint"), [
    ["File", checkpoint.file],
    ["Size", `${(checkpoint.bytes / 2 ** 20).toFixed(1)} MiB`],
    ["Network", network],
    ["Classes", classes?.join(", ")],
    ["Input", flat(preprocessing)],
    ["Thresholds", flat(decision)],
    ["Training", flat(Object.fromEntries(trained))],
    ["Evaluation", flat(evaluation)],
    ["Problem", checkpoint.error],
  ]);
  byId("config").textContent = lines(status.config).join("\n");
  byId("card-panel").hidden = !checkpoint.card;
  byId("card").textContent = checkpoint.card ?? "";
}

function showApi(api) {
  const row = ({method, path, does, query, body, answer}) =>
    make("tr", {}, make("td", {}, make("code", {}, `${method} ${path}`)), ...[does, query, body, answer].map((text) => make("td", {}, text)));
  byId("api").replaceChildren(...api.endpoints.map(row));
}

async function load() {
  const problem = byId("problem");
  try {
    const [status, api] = await Promise.all([request("/status"), request("")]);
    show(status);
    showApi(api);
    problem.hidden = true;
  } catch (error) {
    problem.textContent = error.message;
    problem.hidden = false;
  }
}

connect();
load();
setInterval(load, 30_000);
