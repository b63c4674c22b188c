// The page of one camera's zones and privacy masks: drawn over its live image, previewed, saved and applied.

import {request} from "./request.js";
import {make} from "./text.js";
import {connect} from "./top.js";
import {title, ZoneEditor} from "./zone_editor.js";

const byId = (id) => document.getElementById(id);
const camera = decodeURIComponent(location.pathname.split("/")[2]);
const url = `/cameras/${encodeURIComponent(camera)}/zones`;
const PREVIEW_MS = 300; // after the last change
const IMAGE_MS = 500;
const image = document.querySelector("#frame img");
let settings = null; // as the file has them
let shapes = [];
let pending = 0; // timer of the preview
let asked = 0; // number of the last preview
let imageAt = 0;

const editor = new ZoneEditor(document.querySelector("#frame svg"), {changed, drawn, hint: (text) => { byId("hint").textContent = text; }});

function say(text) {
  byId("problem").textContent = text;
  byId("problem").hidden = !text;
}

const edit = () => ({
  version: settings.version,
  zones: Object.fromEntries(shapes.filter(({kind}) => kind === "zone").map(({name, points}) => [name, points])),
  ignore: shapes.filter(({kind}) => kind === "mask").map(({points}) => points),
});

async function load() {
  clearTimeout(pending);
  asked++; // an answer to an older preview is ignored
  try {
    settings = await request(url);
  } catch (error) {
    say(error.message);
    return setEnabled(false);
  }
  say(settings.fault);
  setEnabled(!settings.fault);
  const masks = settings.ignore.map((points, i) => ({kind: "mask", name: String(i + 1), points}));
  shapes = [...Object.entries(settings.zones).map(([name, points]) => ({kind: "zone", name, points})), ...masks];
  const all = shapes.flatMap(({points}) => points);
  editor.setSize(settings.size_px ?? [Math.max(640, ...all.map(([x]) => x)), Math.max(512, ...all.map(([, y]) => y))]);
  editor.setShapes(shapes);
  list();
  show({difference: "", faults: []});
}

function setEnabled(isEnabled) {
  for (const button of document.querySelectorAll("[data-draw]")) button.disabled = !isEnabled;
}

function drawn(shape) {
  const taken = new Set(shapes.filter(({kind}) => kind === shape.kind).map(({name}) => name));
  for (let number = 1; !shape.name; number++) {
    const name = shape.kind === "mask" ? String(number) : `${shape.points.length === 2 ? "line" : "zone"}${number}`;
    if (!taken.has(name)) shape.name = name;
  }
  changed();
}

function changed() {
  shapes.filter(({kind}) => kind === "mask").forEach((mask, i) => { mask.name = String(i + 1); });
  list();
  byId("saved").textContent = "";
  byId("save").disabled = byId("test").disabled = true;
  byId("report").textContent = "";
  byId("revert").disabled = false;
  clearTimeout(pending);
  pending = setTimeout(preview, PREVIEW_MS);
}

async function preview() {
  const number = ++asked;
  const names = shapes.filter(({kind}) => kind === "zone").map(({name}) => name);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) return show({difference: "", faults: [`zone ${twice}: the name is used twice`]});
  try {
    const answer = await request(`${url}/preview`, {method: "POST", body: JSON.stringify(edit())});
    if (number === asked) show(answer);
  } catch (error) {
    if (number === asked) show({difference: "", faults: [error.message]});
  }
}

function show({difference, faults}) {
  byId("faults").replaceChildren(...faults.map((fault) => make("li", {}, fault)));
  byId("difference").replaceChildren(...difference.split("\n").map((line) => make("span", {className: {"+": "added", "-": "removed", "@": "place"}[line[0]] ?? ""}, `${line}\n`)));
  byId("difference").dataset.ready = String(asked);
  byId("save").disabled = byId("test").disabled = !difference || faults.length > 0;
  byId("revert").disabled = !difference && !faults.length;
}

async function save() {
  byId("save").disabled = true;
  byId("saved").textContent = "Saving …";
  try {
    const {changes, problem} = await request(url, {method: "POST", body: JSON.stringify(edit()), timeoutMs: 60_000});
    await load();
    byId("saved").textContent = problem ? `Written, not applied: ${problem}` : `Applied: ${changes.join("; ")}`;
  } catch (error) {
    byId("saved").textContent = "";
    say(`Not saved: ${error.message}`);
    byId("save").disabled = false;
  }
}

async function test() {
  byId("test").disabled = true;
  byId("report").textContent = "Testing …";
  try {
    byId("report").textContent = (await request(`${url}/test`, {method: "POST", body: JSON.stringify(edit()), timeoutMs: 130_000})).report;
  } catch (error) {
    byId("report").textContent = error.message;
  }
  byId("test").disabled = byId("save").disabled;
}

function list() {
  byId("no-shapes").hidden = shapes.length > 0;
  const rows = shapes.map((shape) => {
    const row = [...byId("shapes").children].find((each) => each.shape === shape) ?? makeRow(shape);
    row.querySelector("span").textContent = `${shape.points.length} points`;
    row.querySelector("button").ariaLabel = `Delete ${title(shape)}`;
    if (shape.kind === "mask") row.querySelector("b").textContent = `Privacy mask ${shape.name}`;
    else row.querySelector("input").ariaLabel = `Name of ${title(shape)}`;
    return row;
  });
  byId("shapes").replaceChildren(...rows);
}

function makeRow(shape) {
  const naming = shape.kind === "mask" ? make("b") : make("input", {value: shape.name, maxLength: 64, spellcheck: false});
  const remove = make("button", {type: "button", className: "quiet", disabled: Boolean(settings.fault)}, "Delete");
  const row = make("li", {data: {kind: shape.kind}}, naming, make("span", {className: "dim"}), remove);
  row.shape = shape;
  naming.addEventListener("input", () => {
    shape.name = naming.value;
    editor.draw();
    changedName();
  });
  row.addEventListener("focusin", () => editor.choose(shape));
  remove.addEventListener("click", () => {
    shapes.splice(shapes.indexOf(shape), 1);
    editor.draw();
    changed();
    byId("page-title").focus();
  });
  return row;
}

function changedName() {
  const focused = document.activeElement;
  changed();
  focused.focus();
}

function receive({frame, picture}) {
  if (frame.camera !== camera) return;
  editor.setSize([frame.width, frame.height]);
  const now = performance.now();
  if (!picture || now - imageAt < IMAGE_MS || !(byId("live").checked || image.hidden)) return;
  imageAt = now;
  image.src = `/api/v1/cameras/${encodeURIComponent(camera)}/frames/${frame.seq}.jpg?session=${encodeURIComponent(frame.session)}`;
}

image.addEventListener("load", () => {
  image.hidden = false;
  byId("no-image").hidden = true;
});
byId("page-title").textContent = `Zones of ${camera}`;
document.title = `Zones of ${camera} · dasnet`;
for (const button of document.querySelectorAll("[data-draw]")) button.addEventListener("click", () => editor.start(button.dataset.draw));
byId("test").addEventListener("click", test);
byId("save").addEventListener("click", save);
byId("revert").addEventListener("click", load);
addEventListener("beforeunload", (event) => {
  if (!byId("revert").disabled) event.preventDefault();
});
connect({frame: receive});
load();
