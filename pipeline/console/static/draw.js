// Draws a frame's image with its tracks, and enlarged crops of targets.

import {imageColour} from "./image_colour.js";
import {colour, isTarget, name, score} from "./text.js";

const PLATE = "rgba(8, 11, 15, .84)";
const EDGE = "rgba(8, 11, 15, .5)";
const ZONE = "var(--zone)";
const BACK = "var(--image-back)";
const MIN_MARK_PX = 22; // on screen, so that a target of three pixels is visible
const GAP_PX = 4;
const MIN_CROP_PX = 24; // in the frame, around a target

const WHOLE = {factor: 1, x: 0.5, y: 0.5};

// Fills `canvas`, which has the frame's aspect ratio.  `image` may be null; `zones` are points by name, in frame
// pixels; `sectors` are lines by name, in frame widths from the middle of the frame.  `zoom`: how much the frame is
// enlarged, and which place of it, 0 to 1, is in the middle.
export function drawFrame(canvas, frame, image, zones, sectors, zoom = WHOLE) {
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  if (!width || !height) return;
  const [columns, rows] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== columns || canvas.height !== rows) [canvas.width, canvas.height] = [columns, rows];
  const context = canvas.getContext("2d", {alpha: false});
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.fillStyle = imageColour(BACK);
  context.fillRect(0, 0, width, height);
  const scale = Math.min(width / frame.width, height / frame.height) * zoom.factor;
  const left = width / 2 - frame.width * scale * zoom.x;
  const top = height / 2 - frame.height * scale * zoom.y;
  context.imageSmoothingQuality = "high";
  if (image) context.drawImage(image, left, top, frame.width * scale, frame.height * scale);
  for (const [zone, points] of Object.entries(zones)) {
    const placed = points.map(([x, y]) => [left + x * scale, top + y * scale]);
    drawZone(context, zone, [points.length > 2 ? [...placed, placed[0]] : placed], width, height);
  }
  const [across, middle, centre] = [frame.width * scale, left + (frame.width * scale) / 2, top + (frame.height * scale) / 2];
  for (const [sector, lines] of Object.entries(sectors)) {
    const placed = lines.map((points) => points.map(([x, y]) => [middle + x * across, centre + y * across]));
    drawZone(context, sector, placed, width, height);
  }
  const shown = frame.tracks.filter((track) => track.state !== "lost");
  shown.sort((a, b) => isTarget(a.label) - isTarget(b.label)); // targets over distractors
  const boxes = shown.map((track) => place(track.xyxy, left, top, scale));
  shown.forEach((track, i) => drawMark(context, track, boxes[i]));
  const taken = [];
  for (let i = shown.length - 1; i >= 0; i--) { // labels of targets are placed first
    if (shown[i].state !== "tentative") drawLabel(context, shown[i], boxes[i], boxes, taken, width, height);
  }
}

// Lines, and their name at the top of what is visible of them.
function drawZone(context, zone, lines, width, height) {
  const outline = new Path2D();
  for (const points of lines) points.forEach(([x, y], i) => (i ? outline.lineTo(x, y) : outline.moveTo(x, y)));
  context.save();
  context.setLineDash([6, 4]);
  for (const [style, lineWidth] of [[EDGE, 3], [imageColour(ZONE), 1.25]]) {
    context.strokeStyle = style;
    context.lineWidth = lineWidth;
    context.stroke(outline);
  }
  context.restore();
  const visible = lines.flat().filter(([x, y]) => x >= 0 && x <= width && y >= 0 && y <= height);
  if (!visible.length) return;
  const [x, y] = visible.reduce((a, b) => (b[1] < a[1] ? b : a));
  context.font = "11px system-ui, sans-serif";
  context.textBaseline = "top";
  const across = context.measureText(zone).width;
  const place = [clamp(x + 5, 2, width - across - 2), clamp(y + 5, 2, height - 14)];
  context.lineWidth = 3;
  context.strokeStyle = EDGE;
  context.strokeText(zone, ...place);
  context.fillStyle = imageColour(ZONE);
  context.fillText(zone, ...place);
}

const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

function place(xyxy, left, top, scale) {
  const [x0, y0, x1, y1] = xyxy.map((value, i) => value * scale + (i % 2 ? top : left));
  const across = Math.max(GAP_PX, (MIN_MARK_PX - (x1 - x0)) / 2);
  const down = Math.max(GAP_PX, (MIN_MARK_PX - (y1 - y0)) / 2);
  return {x0: x0 - across, y0: y0 - down, x1: x1 + across, y1: y1 + down};
}

function drawMark(context, track, box) {
  const tentative = track.state === "tentative";
  context.save();
  context.globalAlpha = tentative ? 0.6 : 1;
  const outline = corners(box, track.state === "coasting" || tentative);
  const line = isTarget(track.label) && !tentative ? 2 : 1.5;
  // A tentative track is not an alarm, and must not have its colour.
  for (const [style, lineWidth] of [[EDGE, line + 1.5], [imageColour(colour(tentative ? "" : track.label)), line]]) {
    context.strokeStyle = style;
    context.lineWidth = lineWidth;
    context.setLineDash(track.state === "coasting" ? [5, 4] : tentative ? [2, 3] : []);
    context.stroke(outline);
  }
  context.restore();
}

// Four corners, or the whole box for dashed lines.
function corners({x0, y0, x1, y1}, whole) {
  const path = new Path2D();
  if (whole) {
    path.rect(x0, y0, x1 - x0, y1 - y0);
    return path;
  }
  const arm = Math.min(14, (x1 - x0) * 0.32, (y1 - y0) * 0.32);
  for (const [x, y, dx, dy] of [[x0, y0, 1, 1], [x1, y0, -1, 1], [x1, y1, -1, -1], [x0, y1, 1, -1]]) {
    path.moveTo(x + dx * arm, y);
    path.lineTo(x, y);
    path.lineTo(x, y + dy * arm);
  }
  return path;
}

// Places the label where it overlaps the fewest other labels and targets.
function drawLabel(context, track, box, boxes, taken, width, height) {
  context.font = "600 11px system-ui, sans-serif";
  const text = `${name(track.label)} #${track.id} ${score(track.score)}`;
  const [across, down] = [Math.ceil(context.measureText(text).width) + 11, 16];
  const [above, below, right, left] = [box.y0 - down - 3, box.y1 + 3, box.x1 + 4, box.x0 - across - 4];
  const places = [
    [box.x0, above], [box.x0, below], [box.x1 - across, above], [box.x1 - across, below],
    [right, box.y0], [left, box.y0], [right, above], [left, above], [right, below], [left, below],
    [box.x0, above - down - 2], [box.x0, below + down + 2],
  ].map(([x, y]) => {
    const x0 = Math.min(Math.max(2, x), width - across - 2);
    const y0 = Math.min(Math.max(2, y), height - down - 2);
    return {x0, y0, x1: x0 + across, y1: y0 + down};
  });
  const cost = (plate) => 3 * overlaps(plate, taken) + overlaps(plate, boxes);
  const best = places.reduce((a, b) => (cost(b) < cost(a) ? b : a));
  const {x0: x, y0: y} = best;
  taken.push(best);
  context.fillStyle = PLATE;
  context.fillRect(x, y, across, down);
  context.fillStyle = imageColour(colour(track.label));
  context.fillRect(x, y, 3, down);
  context.fillStyle = imageColour("var(--image-text)");
  context.textBaseline = "middle";
  context.fillText(text, x + 7, y + down / 2 + 0.5);
}

function overlaps(plate, boxes) {
  return boxes.filter((b) => plate.x0 < b.x1 && b.x0 < plate.x1 && plate.y0 < b.y1 && b.y0 < plate.y1).length;
}

// Draws an enlarged square crop around a target.
export function drawTarget(canvas, frame, image, track) {
  const ratio = window.devicePixelRatio || 1;
  const side = Math.round(canvas.clientWidth * ratio);
  if (!side) return;
  if (canvas.width !== side) canvas.width = canvas.height = side;
  const [x0, y0, x1, y1] = track.xyxy;
  const around = Math.max(MIN_CROP_PX, 1.8 * Math.max(x1 - x0, y1 - y0));
  const scale = (image.videoWidth ?? image.width) / frame.width; // the image may be smaller than the frame
  const context = canvas.getContext("2d", {alpha: false});
  context.fillStyle = imageColour(BACK);
  context.fillRect(0, 0, side, side);
  context.imageSmoothingQuality = "high";
  const left = ((x0 + x1) / 2 - around / 2) * scale;
  const top = ((y0 + y1) / 2 - around / 2) * scale;
  context.drawImage(image, left, top, around * scale, around * scale, 0, 0, side, side);
}
