// The page of one alert: its clip with the player, its images, its review, and its events.

import {SEVERITIES} from "./alert.js";
import {clock} from "./clock.js";
import {AlertView} from "./details.js";
import {Player} from "./player.js";
import {request} from "./request.js";
import {happened, make, timeElement} from "./text.js";
import {connect} from "./top.js";

const byId = (id) => document.getElementById(id);
const id = decodeURIComponent(location.pathname.slice("/alert/".length));
const url = `/alerts/${encodeURIComponent(id)}`;
const MARKED = {"track.confirmed": "Confirmed", "alert.escalated": "Escalated"};
const view = new AlertView((camera) => location.assign(`/#${encodeURIComponent(camera)}`));
const CLIP_MS = 5000; // between questions for a clip that is not here yet
const RECENT_S = 60; // after its end, in which an alert's clip may come
let isShown = false;
let isClipAwaited = true;
let shown = Promise.resolve(); // one after the other: the first one makes the player
let stamp = ""; // of the alert in the list of all pages

function say(element, text) {
  byId(element).textContent = text;
  byId(element).hidden = !text;
}

async function show() {
  try {
    const [alert, {events}] = await Promise.all([request(url), request(`/events?limit=1000&alert=${encodeURIComponent(id)}`)]);
    if (isShown) view.receive([alert]);
    else view.show(alert);
    byId("alert").hidden = false;
    say("problem", "");
    byId("events").replaceChildren(...events.map(line));
    isShown = true;
    if (isClipAwaited) await showClip(alert, events);
  } catch (error) {
    say("problem", error.message);
  }
}

function refresh() {
  shown = shown.then(show);
}

function line(event) {
  const what = make("b", {}, happened(event));
  const more = [event.by && `by ${event.by}`, event.note ?? SEVERITIES[event.severity]].filter(Boolean).join(" · ");
  return make("li", {data: {severity: event.severity}}, make("span", {}, timeElement(event.time_utc_ns)), what, make("span", {className: "camera"}, more));
}

async function showClip(alert, events) {
  const {clip, state, reason} = await request(`${url}/clip.json`);
  if (!clip) {
    const isRecent = alert.state === "active" || clock.ageS(alert.ended_utc_ns) < RECENT_S;
    isClipAwaited = state === "pending" || (state === "none" && isRecent);
    return say("no-clip", noClip(alert, state, reason));
  }
  if (!byId("no-clip").hidden) view.showClip();
  say("no-clip", "");
  const path = await request(`${url}/path`);
  const tracks = path.session && path.session !== clip.session ? [] : path.tracks.filter(({camera}) => !camera || camera === clip.camera);
  const why = path.incomplete && `: ${path.incomplete}`;
  say("no-path", tracks.length ? "" : `No boxes: there is no record of this alert's tracks${why || ""}.`);
  isClipAwaited = false;
  new Player(`/api/v1${url}/clip`, clip, tracks.map((track) => inClip(track, path.columns, clip)), marks(events, clip), () => {
    byId("player").hidden = true;
    say("no-clip", `This browser cannot play ${clip.codec || "the clip"}. Download it below.`);
  });
}

function noClip(alert, state, reason) {
  if (state === "failed") return `No clip: ${reason}`;
  if (state === "pending" || alert.state === "active") return `The clip is not here yet${reason && `: ${reason}`}.`;
  return "No clip of this alert.";
}

// Boxes by name of their columns, with times in the clip.
function inClip({id: number, label, boxes}, columns, clip) {
  const at = Object.fromEntries(columns.map((column, i) => [column, i]));
  const corners = ["x0", "y0", "x1", "y1"].map((corner) => at[corner]);
  const read = (box) => ({timeS: box[at.pts_s] - clip.zero_pts_s, state: box[at.state], xyxy: corners.map((i) => box[i])});
  return {id: number, label, boxes: boxes.map(read)};
}

function marks(events, clip) {
  const of = events.filter((event) => MARKED[event.kind] && event.session === clip.session && event.camera === clip.camera);
  const confirmed = of.find((event) => event.kind === "track.confirmed"); // later ones are further pieces of its path
  const shown = of.filter((event) => event === confirmed || event.kind === "alert.escalated");
  const first = {name: "First sighting", timeS: clip.first_detection_pts_s - clip.zero_pts_s};
  return [first, ...shown.map((event) => ({name: MARKED[event.kind], timeS: event.pts_s - clip.zero_pts_s}))];
}

connect({
  alerts: (list) => {
    const now = JSON.stringify(list.find((alert) => alert.id === id) ?? null);
    if (now !== stamp) refresh(); // from the store: it may be too old for this list
    stamp = now;
  },
});
setInterval(() => isShown && isClipAwaited && !document.hidden && refresh(), CLIP_MS);
refresh();
