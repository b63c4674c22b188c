// The map page: where cameras stand and look, and the bearings of what they see now.

import {load} from "./vendor.js";
import {showList} from "./map_list.js";
import {MapView} from "./map_view.js";
import {drawImagePlane, drawSky} from "./polar.js";
import {request} from "./request.js";
import {Sightings} from "./sightings.js";
import {make} from "./text.js";
import {connect} from "./top.js";

const PERIOD_MS = 250; // between drawings
const RELOAD_MS = 15_000; // poses change by a reload, zones are known with the first frame
const byId = (id) => document.getElementById(id);
const sightings = new Sightings();
let site = null; // the map of the site
let map = null; // as soon as a camera has a pose
let shown = ""; // of the site's cameras
const problems = {site: "", base: ""}; // of the site's data, and of what lies under the cameras

const posed = () => site.cameras.filter((camera) => camera.pose);
const isOnMap = () => byId("views").querySelector("[aria-pressed=true]").value === "map";

function tell(source, problem) {
  problems[source] = problem;
  const text = Object.values(problems).filter(Boolean).join(" ");
  byId("problem").textContent = text;
  byId("problem").hidden = !text;
}

async function reload() {
  try {
    site = await request("/map");
    const cameras = JSON.stringify(site.cameras);
    if (cameras !== shown) await setCameras();
    shown = cameras;
    tell("site", "");
  } catch (error) {
    tell("site", error.message);
  }
}

async function setCameras() {
  const placed = posed();
  if (placed.length && !map) await startMap(placed);
  byId("views").hidden = byId("map-tools").hidden = !placed.length;
  byId("no-pose").hidden = placed.length > 0;
  const rings = byId("rings").value || placed[0]?.id;
  byId("rings").replaceChildren(...placed.map(({id}) => new Option(id, id)), new Option("None", "-"));
  byId("rings").value = placed.some(({id}) => id === rings) ? rings : "-";
  arrange();
}

async function startMap(placed) {
  await load("leaflet.js");
  const origin = [mean(placed.map(({pose}) => pose.lat)), mean(placed.map(({pose}) => pose.lon))];
  byId("map").hidden = false;
  map = new MapView(byId("map"), site.base, origin, choose, (text) => (byId("grid").textContent = text));
  map.ready.catch((error) => tell("base", error.message));
  byId("attribution").textContent = site.base.attribution;
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

// The map, or the plots; and what of it the tools choose.
function arrange() {
  const placed = posed();
  const hasMap = placed.length > 0 && isOnMap();
  byId("map-page").dataset.view = hasMap ? "map" : "polar";
  byId("map").hidden = byId("map-tools").hidden = byId("below").hidden = !hasMap;
  byId("polar").hidden = hasMap;
  byId("sky").hidden = !placed.length;
  if (map) {
    map.reachM = Number(byId("reach").value);
    map.rings = byId("rings").value;
    map.setCameras(placed);
    if (hasMap && !map.isFitted) map.fit();
  }
  drawNow();
}

function drawNow() {
  if (!site) return;
  const cameras = sightings.now(site.cameras);
  showList(byId("shown"), cameras);
  const placed = cameras.filter((camera) => camera.pose);
  if (!byId("map").hidden) return map.show(placed);
  if (placed.length) drawSky(byId("sky").lastElementChild, placed);
  drawPlanes(cameras.filter((camera) => !camera.pose));
}

function drawPlanes(cameras) {
  const box = byId("planes");
  const figures = new Map([...box.children].map((figure) => [figure.dataset.camera, figure]));
  const make1 = ({id}) => make("figure", {data: {camera: id}}, make("figcaption", {}, id), make("div"));
  const kept = cameras.map((camera) => figures.get(camera.id) ?? make1(camera));
  if (kept.length !== box.children.length || kept.some((figure, i) => figure !== box.children[i])) box.replaceChildren(...kept);
  cameras.forEach((camera, i) => drawImagePlane(kept[i].lastElementChild, camera));
}

// A camera that is clicked on the map: its ranges, and its words.
function choose(camera) {
  byId("rings").value = camera;
  arrange();
  byId("shown").querySelector(`[data-camera="${CSS.escape(camera)}"]`)?.focus();
}

for (const id of ["reach", "rings"]) byId(id).addEventListener("change", arrange);
byId("fit").addEventListener("click", () => map.fit());
for (const button of byId("views").children) {
  button.addEventListener("click", () => {
    for (const each of byId("views").children) each.ariaPressed = String(each === button);
    arrange();
  });
}
connect(
  {
    site: (data) => sightings.site(data),
    frame: (data) => sightings.frame(data),
    alerts: (data) => sightings.alerts(data),
  },
  (isLinked) => (sightings.isLinked = isLinked),
);
await reload();
setInterval(reload, RELOAD_MS);
setInterval(() => document.hidden || drawNow(), PERIOD_MS);
