// The status page: versions, engine, checkpoint with its model card, configuration, API.

import {request} from "./request.js";
import {make} from "./text.js";
import {connect} from "./top.js";

// Thresholds in plain words; pixels are those of the network's input.
const MEANINGS = {
  threshold: "object probability from which a pixel belongs to a target's mask",
  min_area_px: "smallest mask that may start a track, in pixels",
  continue_area_ratio: "of that, what is enough to continue a confirmed track",
  min_score: "least mean probability of a mask",
  box_margin_px: "added to each side of a box",
  start_score: "least probability of a detection that starts a track",
  confirm_log_odds: "evidence that confirms a track: few false alarms (role alert)",
  record_log_odds: "evidence that confirms a track: nothing missed (role record)",
  max_novelty: "how unlike training a suppressed target may be; 1: as the rarest in training",
  known_sizes: "frame sizes whose birds and aircraft training knew; others are alerted as unknown",
  uav_log_odds: "evidence above which a track is called a drone",
  distractor_log_odds: "evidence against a drone from which a track is suppressed",
};
let cardShown = null;
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

// Keys with dots, and values as text.
function flattened(part, prefix = "") {
  return Object.entries(part).flatMap(([key, value]) => {
    const isPart = value !== null && typeof value === "object" && !Array.isArray(value);
    if (isPart) return flattened(value, `${prefix}${key}.`);
    return [[prefix + key, Array.isArray(value) ? value.join(", ") || "none" : String(value ?? "none")]];
  });
}

function fill(id, items, cells) {
  byId(id).replaceChildren(...items.map((item) => make("tr", {}, ...cells(item).map((cell) => make("td", {}, cell)))));
}

function showThresholds(byBand) {
  const bands = Object.keys(byBand);
  byId("bands").replaceChildren(...["Threshold", ...bands, "Meaning"].map((text) => make("th", {}, text)));
  const keys = [...new Set(bands.flatMap((band) => Object.keys(byBand[band])))];
  const value = (band, key) => [byBand[band][key] ?? "–"].flat().join(", ") || "none";
  fill("thresholds", keys, (key) => [make("code", {}, key), ...bands.map((band) => value(band, key)), MEANINGS[key] ?? ""]);
}

function cameraCells(camera) {
  const {pose, zones, sectors, ignore, rate_fps: rate, region} = camera;
  const names = Object.keys({...zones, ...sectors}).join(", ");
  const direction = pose && (pose.onvif ? "turns, by ONVIF" : `${pose.azimuth_deg}°, ${pose.hfov_deg}° wide`);
  return [camera.id, make("code", {}, camera.uri), camera.band, camera.host ?? "this one", rate ? `at most ${rate}/s` : "as it comes", camera.scale ? String(camera.scale) : "checkpoint's", region?.join(", ") ?? "whole frame", names || "none", String(ignore?.length || "none"), direction || "unknown", camera.calibration ? "yes" : "none"];
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
  const {network, classes, preprocessing, thresholds, training, evaluation} = checkpoint.described;
  const flat = (part) => part && flattened(part).map(([key, value]) => `${key} ${value}`).join(", ");
  list(byId("checkpoint"), [
    ["File", checkpoint.file],
    ["Size", `${(checkpoint.bytes / 2 ** 20).toFixed(1)} MiB`],
    ["Network", network],
    ["Classes", classes?.join(", ")],
    ["Input", flat(preprocessing)],
    ["Evaluation", flat(evaluation)],
    ["Problem", checkpoint.error],
  ]);
  showThresholds(thresholds ?? {});
  fill("training", flattened(training ?? {}), ([key, value]) => [make("code", {}, key), value]);
  fill("cameras", status.config.cameras, cameraCells);
  byId("config").textContent = lines(status.config).join("\n");
  byId("card-panel").hidden = !checkpoint.card;
  if (cardShown === checkpoint.card_html) return; // scrolled and selected text stays
  cardShown = checkpoint.card_html;
  byId("card").innerHTML = cardShown ?? ""; // of the program's own file, in which HTML is text
}

function showApi(api) {
  const row = ({method, path, does, query, body, answer, role}) =>
    make("tr", {}, make("td", {}, make("code", {}, `${method} ${path}`)), ...[does, query, body, answer, role].map((text) => make("td", {}, text)));
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
