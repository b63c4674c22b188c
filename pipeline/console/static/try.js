// The "Try it" page: uploads a file, and shows the detections or tracks in it.

import {request} from "./request.js";
import {duration, make, name, score} from "./text.js";
import {connect} from "./top.js";

const MAX_BYTES = 64 * 2 ** 20;
const TIMEOUT_MS = 150_000;
const byId = (id) => document.getElementById(id);
let isBusy = false;

async function process(file) {
  if (isBusy) return;
  byId("problem").hidden = true;
  byId("result").hidden = true;
  const started = performance.now();
  const showProgress = () => (byId("working").textContent = `Processing ${file.name} … ${duration((performance.now() - started) / 1000)}`);
  const timer = setInterval(showProgress, 1000);
  isBusy = true;
  byId("file").disabled = true;
  showProgress();
  try {
    if (file.size > MAX_BYTES) throw new Error(`${file.name} is larger than 64 MiB`);
    const path = `/trials?name=${encodeURIComponent(file.name)}`;
    show(file, await request(path, {method: "POST", body: file, timeoutMs: TIMEOUT_MS}));
  } catch (error) {
    byId("problem").textContent = error.message;
    byId("problem").hidden = false;
  } finally {
    clearInterval(timer);
    isBusy = false;
    byId("file").disabled = false;
    byId("file").value = "";
    byId("working").textContent = "";
  }
}

function show(file, trial) {
  const stem = file.name.replace(/\.[^.]*$/, "");
  const parts = trial.kind === "picture" ? imageParts(file, trial) : clipParts(file, trial);
  const links = trial.files.map(({name: part, url, bytes}) => {
    const saved = trial.kind === "picture" ? part.replace("input", stem) : `${stem}_${part}`;
    return make("li", {}, make("a", {href: url, download: saved}, saved), ` ${bytes < 1024 ? `${bytes} B` : `${Math.round(bytes / 1024)} KiB`}`);
  });
  const downloads = make("section", {className: "panel"}, make("h3", {}, "Download"), make("ul", {className: "files"}, ...links));
  byId("result").replaceChildren(...parts, downloads);
  byId("result").hidden = false;
  byId("working").textContent = "Done";
}

const urlOf = (trial, ending) => trial.files.find((file) => file.name.endsWith(ending))?.url;

function panel(title, ...children) {
  return make("section", {className: "panel"}, make("h3", {}, title), ...children);
}

function tile(value, text) {
  return make("div", {className: "tile"}, make("b", {}, value), text);
}

function table(heads, rows) {
  const cells = (tag, values) =>
    values.map((value) => make(tag, {className: typeof value === "number" || /^[\d−-]/.test(value) ? "number" : ""}, String(value)));
  const head = make("tr", {}, ...heads.map((text, i) => make("th", {className: rows[0] && /^[\d−-]/.test(rows[0][i]) ? "number" : ""}, text)));
  return make("div", {className: "scroll", tabIndex: 0, role: "region", ariaLabel: heads.join(", ")}, make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows.map((row) => make("tr", {}, ...cells("td", row))))));
}

function imageParts(file, {result, time_s, files}) {
  const {boxes, size_px, inference_ms, engine} = result;
  const figure = (ending, text) =>
    make("figure", {}, make("img", {src: urlOf({files}, ending), alt: `${text} of ${file.name}`}), make("figcaption", {}, text));
  const rows = boxes.map(({xyxy, label, score: sure, area_px}) => [name(label), score(sure), xyxy.map((v) => v.toFixed(1)).join(", "), Math.round(area_px)]);
  return [
    make(
      "div",
      {className: "tiles"},
      tile(String(boxes.length), boxes.length === 1 ? "detection" : "detections"),
      tile(`${inference_ms.toFixed(0)} ms`, "inference, first frame"),
      tile(duration(time_s), "in total, with loading the network"),
      tile(`${size_px[0]} × ${size_px[1]}`, `pixels, ${engine}`),
    ),
    make("div", {className: "columns"}, figure("_overlay.png", "Overlay"), figure("_mask.png", "Mask")),
    panel("Boxes", rows.length ? table(["Label", "Score", "Left, top, right, bottom (px)", "Area (px)"], rows) : make("p", {className: "empty"}, "No detections.")),
  ];
}

function clipParts(file, {result, time_s, frames_limit, files}) {
  const cut = result.frames === frames_limit ? " (the first ones)" : "";
  const rows = result.per_track.map((track) => [`${name(track.label)} #${track.id}`, score(track.score), `${track.first_s.toFixed(1)} s`, `${track.last_s.toFixed(1)} s`, track.hits]);
  const inference = result.latency_ms.inference;
  return [
    make(
      "div",
      {className: "tiles"},
      tile(String(result.alerts), result.alerts === 1 ? "alert" : "alerts"),
      tile(String(result.frames), `frames processed${cut}`),
      tile(inference ? `${inference.p50.toFixed(0)} ms` : "–", "inference per frame (p50)"),
      tile(duration(time_s), "in total, with loading the network"),
    ),
    make("div", {className: "columns"}, make("figure", {}, make("video", {src: urlOf({files}, "annotated.mp4"), controls: true, muted: true, loop: true, ariaLabel: `Overlay of ${file.name}`}), make("figcaption", {}, "Overlay"))),
    panel("Tracks", rows.length ? table(["Track", "Score", "From", "To", "Detections"], rows) : make("p", {className: "empty"}, "No tracks.")),
  ];
}

const drop = byId("drop");
byId("file").addEventListener("change", () => byId("file").files[0] && process(byId("file").files[0]));
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault(); // otherwise a file dropped beside the area would replace the page
    drop.classList.toggle("over", kind === "dragover");
  });
}
document.addEventListener("drop", (event) => event.dataTransfer.files[0] && process(event.dataTransfer.files[0]));
connect();
