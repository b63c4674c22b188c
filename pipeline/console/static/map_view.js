// The map: cameras with their fields of view, and the bearings of what they see.

/* global L */

import {SEVERITIES} from "./alert.js";
import {destination, ellipse, metres, wedge} from "./geodesy.js";
import {addImage, addTiles, Grid} from "./map_base.js";
import {positions} from "./sightings.js";
import {draw} from "./svg.js";
import {colour, make, name} from "./text.js";
import {mode} from "./camera_state.js";

const SIGMAS = 2; // how many standard deviations errors are drawn
const MAX_ZOOM = 20;
const ZONE_SHARES = [0.86, 0.78, 0.7, 0.62]; // of the range, at which zones end, so that their names do not lie on each other

const shape = (points, className, options = {}) => L.polygon(points, {className, interactive: false, ...options});
const line = (points, className) => L.polyline(points, {className, interactive: false});

// Text beside a point; it is never markup.
function label(place, text, className, anchor = [0, 0]) {
  const html = make("span", {}, text);
  return L.marker(place, {icon: L.divIcon({html, className: `map-label ${className}`, iconSize: [0, 0], iconAnchor: anchor}), interactive: false, keyboard: false});
}

export class MapView {
  #cameras = [];
  #markers = new Map(); // by camera
  #bounds = null;
  isFitted = false; // all cameras were in view once
  reachM = 1000;
  rings = ""; // the camera around which ranges are drawn; empty: none

  // `chosen(camera)`: called for a camera that is clicked.  `said`: where the width of the grid is written.
  constructor(element, base, origin, chosen, said) {
    this.chosen = chosen;
    this.map = L.map(element, {attributionControl: false, fadeAnimation: false, markerZoomAnimation: false, maxZoom: MAX_ZOOM, zoomAnimation: false, zoomSnap: 0.25, zoomDelta: 0.5});
    this.map.setView(origin, 15);
    this.map.createPane("fields").style.zIndex = 350;
    this.grid = new Grid(this.map, origin, said);
    this.fixed = L.layerGroup().addTo(this.map);
    this.live = L.layerGroup().addTo(this.map);
    L.control.scale({imperial: false, maxWidth: 160}).addTo(this.map);
    new ResizeObserver(() => this.map.invalidateSize()).observe(element);
    this.ready = Promise.all([base.pmtiles && addTiles(this.map), base.image && addImage(this.map, base.image)]);
  }

  // Where the cameras stand and look.
  setCameras(cameras) {
    this.#cameras = cameras;
    this.fixed.clearLayers();
    this.#markers.clear();
    for (const camera of cameras) {
      this.#addViews(camera);
      if (camera.id === this.rings) this.#addRings(camera);
    }
    for (const camera of cameras) this.#addMarker(camera);
    const reach = (place) => [0, 90, 180, 270].map((azimuth) => destination(place, azimuth, this.reachM));
    this.#bounds = L.latLngBounds(cameras.flatMap(({pose}) => reach([pose.lat, pose.lon])));
  }

  fit() {
    this.map.invalidateSize({pan: false});
    this.isFitted = true;
    this.map.fitBounds(this.#bounds, {animate: false, padding: [20, 20]});
  }

  show(cameras) {
    this.live.clearLayers();
    const placed = positions(cameras);
    for (const camera of cameras) {
      this.#mark(camera);
      for (const track of camera.tracks) if (track.bearing) this.#addBearing(camera, track, placed);
    }
    for (const track of placed) this.#addPosition(track);
  }

  #addViews({pose, zones, sectors}) {
    const place = [pose.lat, pose.lon];
    const field = (azimuth_deg, className, share) =>
      this.fixed.addLayer(shape(wedge(place, ...azimuth_deg, this.reachM * share), className, {pane: "fields"}));
    field(pose.view.azimuth_deg, "map-view", 1);
    const named = [...Object.entries(zones).map((zone) => [...zone, "map-zone"]), ...Object.entries(sectors).map((sector) => [...sector, "map-sector"])];
    named.forEach(([text, {azimuth_deg: [from, to]}, className], i) => {
      const share = ZONE_SHARES[i % ZONE_SHARES.length];
      field([from, to], className, share);
      this.fixed.addLayer(label(destination(place, (from + to) / 2, this.reachM * share), text, "zone-name"));
    });
  }

  #addRings({pose}) {
    const place = [pose.lat, pose.lon];
    for (const share of [0.25, 0.5, 0.75, 1]) {
      const radius = this.reachM * share;
      this.fixed.addLayer(shape(wedge(place, 0, 360, radius), "map-ring", {fill: false, pane: "fields"}));
      this.fixed.addLayer(label(destination(place, pose.azimuth_deg + 180, radius), metres(radius), "ring-name"));
    }
  }

  #addMarker({id, pose}) {
    const turned = draw("g", {transform: `rotate(${pose.azimuth_deg})`}, draw("path", {d: "M0-13 5-5H-5Z"}), draw("circle", {r: 6}));
    const html = make("span", {}, draw("svg", {viewBox: "-14 -14 28 28", width: 28, height: 28, "aria-hidden": "true"}, turned), make("b", {}, id));
    const icon = L.divIcon({html, className: "map-camera", iconSize: [28, 28], iconAnchor: [14, 14]});
    const marker = L.marker([pose.lat, pose.lon], {icon}).on("click", () => this.chosen(id));
    marker.on("keypress", ({originalEvent}) => ["Enter", " "].includes(originalEvent.key) && this.chosen(id));
    this.fixed.addLayer(marker);
    this.#markers.set(id, marker.getElement());
  }

  #mark(camera) {
    const element = this.#markers.get(camera.id);
    const [mood, text] = mode(camera.status);
    const severities = camera.tracks.map((track) => track.alert?.severity).filter(Boolean);
    const severity = Object.keys(SEVERITIES).find((each) => severities.includes(each));
    element.dataset.mood = mood;
    element.dataset.severity = severity ?? "";
    element.ariaLabel = [`Camera ${camera.id}`, text, severity && SEVERITIES[severity]].filter(Boolean).join(", ");
  }

  #addBearing({pose}, track, placed) {
    const place = [pose.lat, pose.lon];
    const {azimuth_deg: azimuth, azimuth_sigma_deg: sigma} = track.bearing;
    const half = Math.min(180, SIGMAS * sigma);
    const end = destination(place, azimuth, this.reachM);
    const className = `severity-${track.alert?.severity ?? "none"} ${track.state}`;
    const parts = [
      shape(wedge(place, azimuth - half, azimuth + half, this.reachM), `map-error ${className}`),
      line([place, end], `map-bearing ${className}`),
    ];
    if (!placed.some((each) => sameTarget(each, track))) parts.push(label(end, said(track), `target ${className}`));
    for (const part of parts) this.#add(part, track.label);
  }

  #addPosition(track) {
    const {lat, lon, horizontal_sigma_m: along, across_sigma_m: across, sigma_azimuth_deg: azimuth} = track.position;
    const className = `severity-${track.alert?.severity ?? "none"}`;
    const outline = ellipse([lat, lon], SIGMAS * along, SIGMAS * (across ?? along), azimuth ?? 0);
    this.#add(shape(outline, `map-ellipse ${className}`), track.label);
    this.#add(L.circleMarker([lat, lon], {className: `map-position ${className}`, interactive: false, radius: 4}), track.label);
    this.#add(label([lat, lon], said(track), `target ${className}`, [-8, -4]), track.label);
  }

  #add(layer, target) {
    this.live.addLayer(layer);
    layer.getElement().style.setProperty("--label", colour(target));
  }
}

const sameTarget = (one, other) => one.ulid === other.ulid || (one.alert && one.alert.id === other.alert?.id);

function said(track) {
  return [`${name(track.label)} #${track.id}`, track.alert && SEVERITIES[track.alert.severity]].filter(Boolean).join(" · ");
}
