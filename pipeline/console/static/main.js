// The page: wires the stream of events to the wall and the lists, and says at the top how things stand.

import {clock} from "./clock.js";
import {Alerts, showEvents, showTracks} from "./lists.js";
import {Live} from "./live.js";
import {mode, Wall} from "./wall.js";

const byId = (id) => document.getElementById(id);
const wall = new Wall(byId("wall"));
const alerts = new Alerts((camera) => wall.enlarge(camera));
let storeError = null;
let isLinked = false;
let linkedUntil = null; // when the link was lost

function receiveSite(site) {
  clock.learn(site.now_utc_ns);
  storeError = site.store_error;
  wall.setCameras(site.cameras);
  summarise(site.cameras);
  const metrics = byId("metrics");
  metrics.hidden = !site.metrics;
  if (site.metrics) metrics.href = site.metrics;
  showBanner();
}

function summarise(cameras) {
  const worse = cameras.filter((camera) => mode(camera)[0] !== "good");
  const bad = worse.filter((camera) => mode(camera)[0] === "bad");
  const list = (some) => some.map((camera) => `${camera.id} (${mode(camera)[1].toLowerCase()})`).join(", ");
  const summary = byId("summary");
  summary.dataset.mood = bad.length ? "bad" : worse.length ? "late" : "good";
  const text = worse.length
    ? `${cameras.length - worse.length} of ${cameras.length} cameras searching. Not, or not fully: ${list(worse)}`
    : cameras.length === 1 ? "1 camera, searching" : `${cameras.length} cameras, all searching`;
  if (summary.textContent !== text) summary.textContent = text;
}

function setLink(linked) {
  isLinked = linked;
  if (!linked) linkedUntil = new Date();
  byId("link").dataset.state = linked ? "good" : "bad";
  byId("link").firstElementChild.textContent = linked ? "Live" : "Not connected";
  document.body.classList.toggle("unlinked", !linked);
  wall.setLinked(linked);
  if (!linked) {
    byId("summary").dataset.mood = "late";
    byId("summary").textContent = "State of the cameras not known";
  }
  showBanner();
}

function showBanner() {
  const banner = byId("banner");
  let text = "";
  if (!isLinked && linkedUntil) {
    const since = linkedUntil.toLocaleTimeString("en-GB");
    text = `Connection to dasnet lost at ${since}. What is below is from then. Connecting again …`;
  } else if (storeError) {
    text = `Alerts, events and tracks cannot be read: ${storeError}`;
  }
  if (banner.textContent !== text) banner.textContent = text;
  banner.hidden = !text;
}

function receiveAlerts(list) {
  alerts.receive(list);
  const active = alerts.active.length;
  document.title = active ? `(${active}) ${active === 1 ? "alert" : "alerts"} · dasnet` : "dasnet";
}

function showTime() {
  const now = new Date(clock.nowMs);
  byId("local").textContent = now.toLocaleTimeString("en-GB");
  byId("local").dateTime = now.toISOString();
  byId("utc").textContent = `${now.toISOString().slice(11, 19)} UTC`;
}

setInterval(showTime, 1000);
showTime();
new Live(
  {
    site: receiveSite,
    frame: (update) => wall.receive(update),
    alerts: receiveAlerts,
    events: showEvents,
    tracks: showTracks,
  },
  setLink,
);
