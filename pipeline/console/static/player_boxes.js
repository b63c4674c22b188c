// Draws a frame of a clip, enlarged around its target, with boxes and paths of tracks.

import {imageColour} from "./image_colour.js";
import {colour, name} from "./text.js";

const EDGE = "rgba(8, 11, 15, .6)";
const SAME_S = 0.005; // a box is of the frame that is shown
const MAX_GAP_S = 0.5; // between boxes that are interpolated
const GAP_PX = 3; // on screen, around the target
const MIN_BOX_PX = 14;

// The box of a track at a time, interpolated between frames that have one; null: the track is not there.
export function boxAt(boxes, timeS) {
  const next = boxes.findIndex((box) => box.timeS >= timeS - SAME_S);
  if (next < 0) return null;
  const [after, before] = [boxes[next], boxes[next - 1]];
  if (Math.abs(after.timeS - timeS) <= SAME_S) return after;
  if (!before || after.timeS - before.timeS > MAX_GAP_S) return null;
  const part = (timeS - before.timeS) / (after.timeS - before.timeS);
  return {...before, xyxy: before.xyxy.map((value, i) => value + part * (after.xyxy[i] - value))};
}

// Returns how many boxes were drawn.
export function drawFrame(canvas, video, tracks, timeS, {zoom, withBoxes}) {
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (!width || !height || !video.videoWidth) return 0;
  const [columns, rows] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== columns || canvas.height !== rows) [canvas.width, canvas.height] = [columns, rows];
  const context = canvas.getContext("2d", {alpha: false});
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  const shown = tracks.map((track) => ({...track, box: boxAt(track.boxes, timeS)}));
  const view = viewOf(video, shown, timeS, zoom);
  context.imageSmoothingEnabled = zoom < 4; // single pixels are to be seen
  context.imageSmoothingQuality = "high";
  context.drawImage(video, view.x, view.y, view.width, view.height, 0, 0, width, height);
  if (!withBoxes) return 0;
  const scale = width / view.width;
  const place = ([x, y]) => [(x - view.x) * scale, (y - view.y) * scale];
  for (const track of shown) drawPath(context, track, timeS, place);
  for (const track of shown) if (track.box) drawBox(context, track, place);
  return shown.filter((track) => track.box).length;
}

const middle = ([x0, y0, x1, y1]) => [(x0 + x1) / 2, (y0 + y1) / 2];
const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

// The part of the frame that is shown: around the first target that is there, or was last.
function viewOf(video, tracks, timeS, zoom) {
  const [whole, high] = [video.videoWidth, video.videoHeight];
  const [width, height] = [whole / zoom, high / zoom];
  const known = tracks.filter((track) => track.boxes.length);
  const there = known.find((track) => track.box) ?? known[0];
  const nearest = there?.box ?? there?.boxes.reduce((a, b) => (Math.abs(b.timeS - timeS) < Math.abs(a.timeS - timeS) ? b : a));
  const [x, y] = nearest ? middle(nearest.xyxy) : [whole / 2, high / 2];
  return {x: clamp(x - width / 2, 0, whole - width), y: clamp(y - height / 2, 0, high - height), width, height};
}

// What was flown bright, what follows faint.
function drawPath(context, {boxes, label, box}, timeS, place) {
  const now = box ? [{...box, timeS}] : [];
  const [before, after] = [boxes.filter((each) => each.timeS <= timeS), boxes.filter((each) => each.timeS > timeS)];
  for (const [points, alpha] of [[[...before, ...now], 0.9], [[...now, ...after], 0.35]]) {
    const path = new Path2D();
    points.forEach(({xyxy}) => path.lineTo(...place(middle(xyxy))));
    context.globalAlpha = alpha;
    for (const [style, lineWidth] of [[EDGE, 3], [imageColour(colour(label)), 1.25]]) {
      context.strokeStyle = style;
      context.lineWidth = lineWidth;
      context.stroke(path);
    }
  }
  context.globalAlpha = 1;
}

function drawBox(context, {box, label, id}, place) {
  const [x0, y0] = place(box.xyxy.slice(0, 2));
  const [x1, y1] = place(box.xyxy.slice(2));
  const across = Math.max(GAP_PX, (MIN_BOX_PX - (x1 - x0)) / 2);
  const down = Math.max(GAP_PX, (MIN_BOX_PX - (y1 - y0)) / 2);
  context.setLineDash(box.state === "coasting" ? [5, 4] : []);
  for (const [style, lineWidth] of [[EDGE, 3.5], [imageColour(colour(label)), 2]]) {
    context.strokeStyle = style;
    context.lineWidth = lineWidth;
    context.strokeRect(x0 - across, y0 - down, x1 - x0 + 2 * across, y1 - y0 + 2 * down);
  }
  context.setLineDash([]);
  context.font = "600 12px system-ui, sans-serif";
  context.textBaseline = "bottom";
  context.lineWidth = 3;
  context.strokeStyle = EDGE;
  const text = `${name(label)} #${id}`;
  const at = [clamp(x0 - across, 2, context.canvas.clientWidth - context.measureText(text).width - 2), Math.max(16, y0 - down - 3)];
  context.strokeText(text, ...at);
  context.fillStyle = imageColour(colour(label));
  context.fillText(text, ...at);
}
