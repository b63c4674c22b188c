// What cameras see, without a map: directions on the sky, and in the images of cameras whose pose is unknown.

import {draw} from "./svg.js";
import {colour, name} from "./text.js";

const RADIUS = 200;
const LOWEST_DEG = -15; // at the edge; what is lower is drawn there
const SIGMAS = 2;
const GLYPH_PX = 7.4; // of a bold text, on average
const LINE_PX = 13;
const POINTS = {N: 0, E: 90, S: 180, W: 270};

// Zenith in the middle, north up.
function onSky([azimuth, elevation]) {
  const distance = (RADIUS * (90 - Math.max(LOWEST_DEG, elevation))) / (90 - LOWEST_DEG);
  const angle = (azimuth * Math.PI) / 180;
  return [distance * Math.sin(angle), -distance * Math.cos(angle)];
}

const path = (points, isClosed) => `M${points.map((point) => point.map((value) => value.toFixed(1)).join(" ")).join("L")}${isClosed ? "Z" : ""}`;
const text = (x, y, content, className, anchor = "middle") => draw("text", {x, y, class: className, "text-anchor": anchor}, content);

function plot(ariaLabel, ...children) {
  const side = RADIUS + 28;
  return draw("svg", {viewBox: `${-side} ${-side} ${2 * side} ${2 * side}`, role: "img", "aria-label": ariaLabel}, ...children);
}

// Places texts where they lie on no other.
class Texts {
  #taken = [];

  // A point on which no text may lie.
  keep([x, y]) {
    for (const base of [y, y + LINE_PX / 2]) this.#taken.push({left: x - 6, right: x + 6, y: base});
  }

  // Beside a point: on its right or left, else above or below that.
  beside([x, y], content, className) {
    const across = content.length * GLYPH_PX;
    const places = [0, -LINE_PX, LINE_PX, -2 * LINE_PX, 2 * LINE_PX].flatMap((down) => [[x + 9, y + 4 + down], [x - 9 - across, y + 4 + down]]);
    const isFree = ([left, base]) => this.#taken.every((other) => Math.abs(other.y - base) >= LINE_PX || left + across < other.left || left > other.right);
    const [left, base] = places.find(isFree) ?? places[0];
    this.#taken.push({left, right: left + across, y: base});
    return text(left, base, content, className, "start");
  }
}

function target(track, [x, y], [across, down], texts, words) {
  const severity = track.alert?.severity ?? "none";
  const group = draw(
    "g",
    {class: `severity-${severity} ${track.state}`, "data-ulid": track.ulid},
    draw("ellipse", {cx: x, cy: y, rx: Math.max(5, across), ry: Math.max(5, down), class: "polar-error"}),
    draw("circle", {cx: x, cy: y, r: 3.5, class: "polar-target"}),
    texts.beside([x, y], words, "target-name"),
  );
  group.style.setProperty("--label", colour(track.label));
  return group;
}

// All cameras with a pose: azimuth against elevation.
export function drawSky(box, cameras) {
  const grid = [0, 30, 60].flatMap((elevation) => {
    const radius = -onSky([0, elevation])[1];
    return [draw("circle", {r: radius, class: elevation ? "polar-grid" : "polar-horizon"}), text(3, -radius + 11, `${elevation}°`, "polar-number", "start")];
  });
  const spokes = [...Array(12).keys()].map((i) => draw("path", {d: path([[0, 0], onSky([i * 30, LOWEST_DEG])]), class: "polar-grid"}));
  const texts = new Texts();
  const letters = Object.entries(POINTS).map(([letter, azimuth]) => {
    const [x, y] = onSky([azimuth, LOWEST_DEG]).map((value) => value * 1.07);
    texts.keep([x, y]);
    return text(x, y + 4, letter, "polar-point");
  });
  const seen = cameras.flatMap(({tracks}) => tracks).filter((track) => track.bearing);
  const at = ({bearing}) => onSky([bearing.azimuth_deg, bearing.elevation_deg]);
  seen.forEach((track) => texts.keep(at(track)));
  const targets = seen.map((track) => {
    const radius = (RADIUS * SIGMAS * track.bearing.elevation_sigma_deg) / (90 - LOWEST_DEG);
    return target(track, at(track), [radius, radius], texts, `${name(track.label)} #${track.id} ${track.camera}`);
  });
  const views = cameras.flatMap(({pose, zones, sectors}) => [
    draw("path", {d: path(pose.view.outline.map(onSky), true), class: "polar-view"}),
    ...outlines(zones, "polar-zone", texts),
    ...outlines(sectors, "polar-sector", texts),
  ]);
  const names = cameras.map(({id, pose}) => texts.beside(onSky([pose.azimuth_deg, pose.view.elevation_deg[0]]), id, "polar-camera"));
  const edge = draw("circle", {r: RADIUS, class: "polar-back"});
  const said = seen.map((track) => `${name(track.label)} ${Math.round(track.bearing.azimuth_deg)}°, ${Math.round(track.bearing.elevation_deg)}° up`);
  box.replaceChildren(plot(`Azimuth and elevation: ${said.join("; ") || "no tracks"}`, edge, ...spokes, ...grid, ...letters, ...views, ...targets, ...names));
}

function outlines(parts, className, texts) {
  return Object.entries(parts).flatMap(([part, {outline}]) => {
    const points = outline.map(onSky);
    const top = points.reduce((a, b) => (b[1] < a[1] ? b : a));
    return [draw("path", {d: path(points, className === "polar-sector"), class: className}), texts.beside(top, part, "zone-name")];
  });
}

// A camera without a pose: where in its image, as directions from the middle.
export function drawImagePlane(box, {id, frame, tracks}) {
  const [width, height] = frame ? [frame.width, frame.height] : [4, 3];
  const scale = (2 * RADIUS) / Math.hypot(width, height);
  const at = ([x, y]) => [(x - width / 2) * scale, (y - height / 2) * scale];
  const [left, top] = at([0, 0]);
  const texts = new Texts();
  const targets = tracks.map((track) => {
    const [x0, y0, x1, y1] = track.xyxy;
    return target(track, at([(x0 + x1) / 2, (y0 + y1) / 2]), [((x1 - x0) / 2) * scale, ((y1 - y0) / 2) * scale], texts, `${name(track.label)} #${track.id}`);
  });
  const said = tracks.map((track) => name(track.label)).join(", ") || "no tracks";
  box.replaceChildren(plot(
    `${id}, directions in the image: ${said}`,
    draw("circle", {r: RADIUS, class: "polar-back"}),
    draw("circle", {r: RADIUS / 2, class: "polar-grid"}),
    draw("path", {d: `M${-RADIUS} 0H${RADIUS}M0 ${-RADIUS}V${RADIUS}`, class: "polar-grid"}),
    draw("rect", {x: left, y: top, width: -2 * left, height: -2 * top, class: "polar-view"}),
    ...[["up", 0, -RADIUS - 8], ["down", 0, RADIUS + 18]].map(([word, x, y]) => text(x, y, word, "polar-point")),
    ...targets,
  ));
}
