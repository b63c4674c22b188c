// The header of every page: camera summary, number of unacknowledged alerts, connection state, time.

import {count, isWaiting} from "./alert.js";
import {mode} from "./camera_state.js";
import {clock} from "./clock.js";
import {Live} from "./live.js";
import {leave} from "./push.js";
import {request} from "./request.js";
import {offerThemes} from "./theme.js";

const byId = (id) => document.getElementById(id);
const NAMED = 3; // cameras that are not well, at most
const title = document.title;
let storeError = null;
let isLinked = null; // not known yet
let linkedUntil = null; // when the connection was lost; null: there was none yet

// `topics`: further callbacks for the data of each event.  `linked(isLinked)`: called on each change.
export function connect(topics = {}, linked = () => {}) {
  const own = {site: receiveSite, alerts: receiveAlerts};
  const all = {};
  for (const topic of new Set([...Object.keys(own), ...Object.keys(topics)])) {
    all[topic] = (data) => {
      own[topic]?.(data);
      topics[topic]?.(data);
    };
  }
  offerThemes(byId("theme"));
  byId("logout")?.addEventListener("click", logOut);
  byId("arming").lastElementChild.addEventListener("click", switchArming);
  setInterval(showTime, 1000);
  showTime();
  new Live(all, (isLinkedNow) => {
    setLink(isLinkedNow);
    linked(isLinkedNow);
  });
}

function receiveSite(site) {
  clock.update(site.now_utc_ns);
  storeError = site.store_error;
  summarise(site.cameras);
  const metrics = byId("metrics");
  metrics.hidden = !site.metrics;
  if (site.metrics) metrics.href = site.metrics;
  showArming(site.armed);
  showBanner();
}

// Null: no rule depends on it.
function showArming(armed) {
  const arming = byId("arming");
  const [state, button] = arming.children;
  arming.hidden = armed === null;
  arming.dataset.armed = armed;
  state.textContent = armed ? "Armed" : "Disarmed";
  button.textContent = armed ? "Disarm" : "Arm";
}

async function switchArming() {
  const isArmed = byId("arming").dataset.armed === "true";
  if (isArmed && !confirm("Disarm the site? Rules that need arming raise no alerts until it is armed again.")) return;
  try {
    showArming((await request(isArmed ? "/disarm" : "/arm", {method: "POST"})).armed);
  } catch (error) {
    byId("summary").textContent = `${isArmed ? "Disarming" : "Arming"} failed: ${error.message}`;
  }
}

async function logOut() {
  try {
    await leave().catch(() => {}); // also without it the session ends
    await request("/logout", {method: "POST"});
    location.assign("/login");
  } catch (error) {
    byId("summary").textContent = `Logout failed: ${error.message}`;
  }
}

function receiveAlerts(alerts) {
  const waiting = alerts.filter(isWaiting).length;
  document.title = waiting ? `(${count(waiting)}) ${waiting === 1 ? "alert" : "alerts"} · dasnet` : title;
  byId("badge").textContent = count(waiting);
}

function summarise(cameras) {
  const moods = cameras.map((camera) => mode(camera)[0]);
  const summary = byId("summary");
  summary.dataset.mood = moods.includes("bad") ? "bad" : moods.every((mood) => mood === "good") ? "good" : "late";
  const text = summaryText(cameras);
  if (summary.textContent !== text) summary.textContent = text;
}

export function summaryText(cameras) {
  const worse = cameras.filter((camera) => mode(camera)[0] !== "good");
  if (!worse.length) return cameras.length === 1 ? "1 camera, processing" : `${cameras.length} cameras, all processing`;
  const told = [...worse].sort((a, b) => (mode(b)[0] === "bad") - (mode(a)[0] === "bad"));
  const more = told.length > NAMED ? ` and ${told.length - NAMED} more` : "";
  const named = told.slice(0, NAMED).map((camera) => {
    const detail = mode(camera)[1].toLowerCase();
    return detail === camera.state ? camera.id : `${camera.id} (${detail})`;
  });
  return `${counted(cameras)}: ${named.join(", ")}${more}`;
}

// As "1 processing, 1 partly, 1 blind": a camera that misses some frames does process the others.
function counted(cameras) {
  const words = {good: "processing", late: "partly", wait: "starting", down: "down", blind: "blind"};
  const word = (camera) => words[mode(camera)[0] === "bad" ? camera.state : mode(camera)[0]];
  const counts = Object.values(words).map((one) => [cameras.filter((camera) => word(camera) === one).length, one]);
  return counts.filter(([count]) => count).map(([count, one]) => `${count} ${one}`).join(", ");
}

function setLink(linked) {
  if (isLinked && !linked) linkedUntil = new Date();
  isLinked = linked;
  if (!linked) {
    request("/cameras").catch(() => {}); // redirects to the login where the session has ended
  }
  byId("link").dataset.state = linked ? "good" : "bad";
  byId("link").firstElementChild.textContent = linked ? "Live" : "Not connected";
  document.body.classList.toggle("unlinked", !linked);
  if (!linked) {
    byId("summary").dataset.mood = "late";
    byId("summary").textContent = "Camera status unknown";
  }
  showBanner();
}

function showBanner() {
  const banner = byId("banner");
  let text = "";
  if (isLinked === false && !linkedUntil) {
    text = "dasnet sends no live data yet. Trying again …";
  } else if (isLinked === false) {
    const since = linkedUntil.toLocaleTimeString("en-GB");
    text = `Connection to dasnet lost at ${since}. Data below is from then. Reconnecting …`;
  } else if (storeError) {
    text = `Alerts, events and tracks cannot be read: ${storeError}`;
  }
  if (banner.textContent !== text) banner.textContent = text;
  banner.hidden = !text;
}

function showTime() {
  const now = new Date(clock.nowMs);
  byId("local").textContent = now.toLocaleTimeString("en-GB");
  byId("local").dateTime = now.toISOString();
  byId("utc").textContent = `${now.toISOString().slice(11, 19)} UTC`;
}
