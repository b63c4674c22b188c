// In words, what the map shows.

import {SEVERITIES, alertUrl} from "./alert.js";
import {compass, distanceM, metres} from "./geodesy.js";
import {colour, follow, make, name} from "./text.js";
import {mode} from "./camera_state.js";

const degrees = (value) => `${value.toFixed(1)}°`;
const coordinates = (lat, lon) => `${lat.toFixed(5)},\u00a0${lon.toFixed(5)}`;

function standing({pose, status}) {
  const state = mode(status)[1];
  if (!pose) return `${state} · no pose: directions in the image only`;
  const {lat, lon, azimuth_deg: azimuth, elevation_deg: elevation, hfov_deg: wide} = pose;
  const tilt = elevation ? `, ${degrees(Math.abs(elevation))} ${elevation < 0 ? "down" : "up"}` : "";
  return `${state} · looks ${compass(azimuth)} (${Math.round(azimuth)}°${tilt}), ${Math.round(wide)}° wide · ${coordinates(lat, lon)}`;
}

function spans({zones, sectors}) {
  const said = ([part, {azimuth_deg: [from, to]}]) => `${part} ${Math.round(from % 360)}° to ${Math.round(to % 360 || to)}°`;
  const lists = [["Zones", zones], ["Sectors", sectors]].map(([kind, parts]) => [kind, Object.entries(parts).map(said)]);
  return lists.filter(([, parts]) => parts.length).map(([kind, parts]) => `${kind}: ${parts.join(", ")}`).join(" · ");
}

function direction({bearing, xyxy: [x0, y0, x1, y1]}, frame) {
  if (bearing) {
    const {azimuth_deg: azimuth, elevation_deg: elevation, azimuth_sigma_deg: sigma} = bearing;
    return `bearing ${degrees(azimuth)} ± ${degrees(sigma)} (${compass(azimuth)}), elevation ${degrees(elevation)}`;
  }
  const share = (value, size) => Math.round((value / size - 0.5) * 200);
  const [right, down] = [share((x0 + x1) / 2, frame.width), share((y0 + y1) / 2, frame.height)];
  return `${Math.abs(right)} % ${right < 0 ? "left" : "right"} and ${Math.abs(down)} % ${down < 0 ? "up" : "down"} from the middle`;
}

function place({position}, {pose}) {
  if (!position) return "";
  const {lat, lon, height_m: height, horizontal_sigma_m: sigma} = position;
  const away = pose ? `, ${metres(distanceM([pose.lat, pose.lon], [lat, lon]))} away` : "";
  return `at ${coordinates(lat, lon)} ± ${metres(sigma)}, ${metres(height)} high${away}`;
}

function makeCamera() {
  const link = make("a", {}, make("b"));
  return make("li", {tabIndex: -1}, make("p", {className: "who"}, link, make("span", {className: "severity"})), make("p", {className: "dim"}), make("p", {className: "dim"}), make("ul"));
}

function fillCamera(item, camera) {
  const [who, where, parts, list] = item.children;
  item.dataset.camera = camera.id;
  item.dataset.mood = camera.mood;
  who.firstElementChild.href = `/#${encodeURIComponent(camera.id)}`;
  who.querySelector("b").textContent = camera.id;
  where.textContent = camera.standing;
  parts.textContent = camera.spans;
  parts.hidden = !camera.spans;
  follow(list, camera.targets, (target) => target.ulid, makeTarget, fillTarget);
}

function makeTarget() {
  return make("li", {}, make("i", {className: "dot", ariaHidden: "true"}), make("a", {}), make("span", {className: "severity"}), make("p"), make("p"));
}

function fillTarget(item, target) {
  const [, link, severity, direction, place] = item.children;
  item.style.setProperty("--label", colour(target.label));
  item.dataset.severity = target.severity ?? "";
  link.textContent = target.title;
  if (target.alert) link.href = alertUrl(target.alert);
  else link.removeAttribute("href");
  severity.textContent = target.severity ? SEVERITIES[target.severity] : "";
  direction.textContent = target.direction;
  place.textContent = target.place;
  place.hidden = !target.place;
}

export function showList(list, cameras) {
  const shown = cameras.map((camera) => ({
    id: camera.id,
    mood: mode(camera.status)[0],
    standing: standing(camera),
    spans: spans(camera),
    targets: camera.tracks.map((track) => ({
      ulid: track.ulid,
      label: track.label,
      title: `${name(track.label)} #${track.id}${track.state === "coasting" ? ", coasting" : ""}`,
      alert: track.alert?.id,
      severity: track.alert?.severity,
      direction: direction(track, camera.frame),
      place: place(track, camera),
    })),
  }));
  follow(list, shown, (camera) => camera.id, makeCamera, fillCamera);
}
