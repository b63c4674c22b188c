"""Draw the targets of a frame.

In: a frame's pixels, its Detections, and the tracks after it.  Out: a new image, uint8 (H, W, 3) RGB; the input is not
changed.  A target's own pixels only get a translucent tint: they are restored at the end, so that no line, label or
neighbour's mark can cover the target that the image is evidence of.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, hypot, inf

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.types import SHOWN_SCORE, UAV, UNKNOWN, Detections, Mask, Track, TrackState

Image = NDArray[np.uint8]
Rgb = tuple[int, int, int]
Stroke = tuple[tuple[int, int], tuple[int, int]]
Box = tuple[int, int, int, int]  # left, top, right, bottom in the drawn image; right and bottom exclusive

COLOURS: dict[str, Rgb] = {
    UAV: (255, 77, 79),
    UNKNOWN: (255, 179, 46),
    "bird": (90, 169, 255),
    "airplane": (148, 170, 196),
    "helicopter": (128, 138, 235),
}
OTHER: Rgb = (160, 168, 178)  # other distractors, tentative tracks
DARK: Rgb = (14, 17, 22)
WHITE: Rgb = (245, 247, 250)
TINT = 0.25  # opacity over the target
RING = 0.85  # of the line around it
SHADE = 0.55  # of the dark edge of lines
PLATE = 0.68  # behind a label
VELOCITY_S = 0.5  # a line shows where the target will be after this time, within limits
_FONT = cv2.FontFace("sans")  # built into OpenCV 5; legible from 9 pixels on, unlike the Hershey fonts


def colour(label: str) -> Rgb:
    """Return the colour of a label."""
    return COLOURS.get(label, OTHER)


class _Canvas:
    """The drawn image, its place in frame coordinates, and sizes of lines and text by its height."""

    def __init__(self, image: Image, scale: float = 1, origin_px: tuple[float, float] = (0.0, 0.0)) -> None:
        self.image, self.scale, self.origin_px = image, scale, origin_px
        self.height, self.width = int(image.shape[0]), int(image.shape[1])
        self.own = np.zeros(image.shape[:2], np.bool_)  # the targets' pixels
        self.font_px = min(30, max(11, round(11 + (self.height - 300) / 80)))
        self.line_px = max(1, round(self.height / 640))

    def box(self, xyxy: Sequence[float]) -> Box:
        """Return the smallest box of whole pixels around `xyxy`; it may lie partly outside the image."""
        left, top, right, bottom = (np.array(xyxy) - self.origin_px * 2) * self.scale
        return floor(left), floor(top), ceil(right), ceil(bottom)

    def around(self, xyxy: Sequence[float]) -> Box:
        """Return the box to draw, edges inclusive: a little outside the target's own and of a minimum size."""
        left, top, right, bottom = self.box(xyxy)
        gap, least = 2 + 2 * self.line_px, 3 + 5 * self.line_px
        across, down = (max(gap, least - side // 2) for side in (right - left, bottom - top))
        return left - across, top - down, right - 1 + across, bottom - 1 + down

    def clip(self, box: Box) -> tuple[slice, slice]:
        """Return rows and columns of the box's part inside the image."""
        left, top, right, bottom = np.clip(box, 0, (self.width, self.height) * 2).tolist()
        return slice(top, bottom), slice(left, right)


@dataclass(frozen=True, slots=True)
class _Mark:
    """A target to draw: a track, or a detection without a track."""

    xyxy: tuple[float, float, float, float]
    label: str  # decides colour and rank; empty for a tentative track
    text: str
    state: TrackState
    velocity_px_s: tuple[float, float] = (0.0, 0.0)

    @property
    def rgb(self) -> Rgb:
        red, green, blue = colour(self.label)
        dim = 0.8 if self.state is TrackState.COASTING else 1.0
        return round(red * dim), round(green * dim), round(blue * dim)

    @property
    def rank(self) -> tuple[bool, bool, bool]:
        """Return a key that sorts the target first whose label gets the best place, and whose lines lie on top."""
        return self.state is TrackState.TENTATIVE, self.label not in (UAV, UNKNOWN), self.label != UAV


def draw(
    pixels: Image,
    detections: Detections | None,
    tracks: Sequence[Track],
    scale: int = 1,
    origin_px: tuple[float, float] = (0.0, 0.0),
    labels: bool = True,
    preview_scale: float = 1.0,
    least_score: float = SHOWN_SCORE,
) -> Image:
    """Mark targets on a copy of `pixels` (HxWx3 RGB or HxW), enlarged `scale` times.

    Detections without a track, of `least_score` and more, are marked as tentative.  Lost tracks are not drawn, nor are
    tentative ones that are probably clutter.  Where `pixels` is a window of the frame, `origin_px` is its top left
    corner in the frame; where it is a preview, `preview_scale` is its size relative to the frame's.
    """
    size = (pixels.shape[1] * scale, pixels.shape[0] * scale)
    colours = pixels if pixels.ndim == 3 else np.stack([pixels] * 3, axis=2)
    image = np.asarray(cv2.resize(np.ascontiguousarray(colours), size, interpolation=cv2.INTER_LINEAR), np.uint8)
    canvas = _Canvas(image, scale * preview_scale, origin_px)
    drawn = [track for track in tracks if track.is_shown]
    marks = [_of_track(track) for track in drawn]
    if detections is not None:
        _add_detections(canvas, marks, detections, owners(detections, drawn), least_score)
    if detections is None or not detections.masks:
        for mark in marks:
            canvas.own[canvas.clip(canvas.box(mark.xyxy))] |= mark.state is not TrackState.COASTING
    own, flat = np.flatnonzero(canvas.own), image.reshape(-1, 3)
    kept = flat[own]
    marks.sort(key=lambda mark: mark.rank)
    for mark in reversed(marks):
        _outline(canvas, mark)
    if labels:
        _write_labels(canvas, marks)
    flat[own] = kept
    return image


def _add_detections(
    canvas: _Canvas, marks: list[_Mark], detections: Detections, owners: Sequence[int | None], least_score: float
) -> None:
    """Tint each mask in the colour of its track; add a mark for each detection without a track, of a least score."""
    for index, owner in enumerate(owners):
        if owner is None and detections.score[index] < least_score:
            continue
        mark = _of_detection(detections, index) if owner is None else marks[owner]
        if owner is None:
            marks.append(mark)
        if index < len(detections.masks):
            _tint(canvas, detections.masks[index], detections.mask_scale, mark.rgb)


def _of_track(track: Track) -> _Mark:
    """Mark a track; a tentative one has no label, unlike an alarm, since a cloud may stay tentative for minutes."""
    tentative = track.state is TrackState.TENTATIVE
    text = "" if tentative else f"{track.label.upper()} #{track.id} {track.score:.2f}"
    return _Mark(track.xyxy, "" if tentative else track.label, text, track.state, track.velocity_px_s)


def _of_detection(detections: Detections, index: int) -> _Mark:
    left, top, right, bottom = map(float, detections.xyxy[index])
    scores = detections.class_scores[index]
    best = int(scores.argmax()) if scores.size else -1
    label = detections.classes[best] if best >= 0 and scores[best] >= 0.5 else UNKNOWN
    text = f"{label.upper()} {float(detections.score[index]):.2f}"
    return _Mark((left, top, right, bottom), label, text, TrackState.TENTATIVE)


def owners(detections: Detections, tracks: Sequence[Track]) -> list[int | None]:
    """Return for each detection the index of the nearest visible track within their mean size, or None."""
    visible = [index for index, track in enumerate(tracks) if track.state is not TrackState.COASTING]
    if not visible:
        return [None] * len(detections)
    boxes, others = detections.xyxy.astype(float)[:, None], np.array([tracks[index].xyxy for index in visible])
    middle_px = (boxes[..., :2] + boxes[..., 2:] - others[..., :2] - others[..., 2:]) / 2
    size_px = (boxes[..., 2:] - boxes[..., :2] + others[..., 2:] - others[..., :2]).sum(axis=-1) / 4
    apart = np.hypot(middle_px[..., 0], middle_px[..., 1]) / (size_px + 4)
    return [visible[int(row.argmin())] if row.min() < 1 else None for row in apart]


def _place(
    canvas: _Canvas, mask: Mask, mask_scale: tuple[float, float]
) -> tuple[tuple[slice, slice], NDArray[np.bool_]]:
    """Return a mask's window in the image, with a margin of two pixels, and which of its pixels the mask covers.

    A pixel is covered if the mask, interpolated at its centre, is at least one half.
    """
    bits = mask.unpack()
    step_x, step_y = mask_scale[0] * canvas.scale, mask_scale[1] * canvas.scale
    left = mask.left * step_x - canvas.origin_px[0] * canvas.scale
    top = mask.top * step_y - canvas.origin_px[1] * canvas.scale
    right, bottom = ceil(left + mask.width * step_x), ceil(top + mask.height * step_y)
    rows, columns = canvas.clip((floor(left) - 2, floor(top) - 2, right + 2, bottom + 2))
    inside = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.bool_)
    if not inside.size or not bits.any():
        return (rows, columns), inside
    across = (np.arange(columns.start, columns.stop, dtype=np.float32) + 0.5 - left) / step_x - 0.5
    down = (np.arange(rows.start, rows.stop, dtype=np.float32) + 0.5 - top) / step_y - 0.5
    maps = np.meshgrid(across.astype(np.float32), down.astype(np.float32))
    inside |= cv2.remap(bits.astype(np.float32), *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT) >= 0.5
    if not inside.any():  # smaller than a pixel, between the centres of pixels
        y, x = np.argwhere(bits).mean(axis=0) + 0.5
        row, column = floor(top + y * step_y) - rows.start, floor(left + x * step_x) - columns.start
        if 0 <= row < inside.shape[0] and 0 <= column < inside.shape[1]:
            inside[row, column] = True
    return (rows, columns), inside


def _tint(canvas: _Canvas, mask: Mask, mask_scale: tuple[float, float], rgb: Rgb) -> None:
    """Fill a mask thinly and draw a line around it, on the pixels just outside."""
    window, inside = _place(canvas, mask, mask_scale)
    if not inside.any():
        return
    part = canvas.image[window]
    ring = cv2.dilate(inside.view(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & ~inside
    part[inside] = np.rint(part[inside] * (1 - TINT) + np.array(rgb) * TINT)
    part[ring] = np.rint(part[ring] * (1 - RING) + np.array(rgb) * RING)
    canvas.own[window] |= inside


def _outline(canvas: _Canvas, mark: _Mark) -> None:
    """Draw corner brackets, heavier for a confirmed track, dashes for a coasting one, and a line along the velocity."""
    left, top, right, bottom = canvas.around(mark.xyxy)
    strokes = _heading(canvas, mark)
    corners = ((left, top), (right, top), (right, bottom), (left, bottom))
    if mark.state is TrackState.COASTING:
        for start, end in zip(corners, corners[1:] + corners[:1], strict=True):
            strokes += _dashes(start, end, 2 + 2 * canvas.line_px)
    else:
        arm_x, arm_y = (
            max(4, min(round(side * 0.28), 6 + 8 * canvas.line_px)) for side in (right - left, bottom - top)
        )
        for x, y in corners:
            strokes.append(((x, y), (x + (arm_x if x == left else -arm_x), y)))
            strokes.append(((x, y), (x, y + (arm_y if y == top else -arm_y))))
    width_px = canvas.line_px + (mark.state is TrackState.CONFIRMED)
    rows, columns = canvas.clip(_bounds(strokes, width_px + 2))
    part = canvas.image[rows, columns]
    for rgb, line_px, opacity in ((DARK, width_px + 2, SHADE), (mark.rgb, width_px, 1.0)):
        layer = part.copy()  # also because OpenCV draws on contiguous memory
        for start, end in strokes if part.size else ():
            points = [(x - columns.start, y - rows.start) for x, y in (start, end)]
            cv2.line(layer, points[0], points[1], rgb, line_px, cv2.LINE_AA)
        part[:] = np.rint(part * (1 - opacity) + layer * opacity)


def _bounds(strokes: Sequence[Stroke], margin_px: int) -> Box:
    x, y = ([point[axis] for stroke in strokes for point in stroke] or [0] for axis in (0, 1))
    return min(x) - margin_px, min(y) - margin_px, max(x) + margin_px + 1, max(y) + margin_px + 1


def _dashes(start: tuple[int, int], end: tuple[int, int], dash_px: int) -> list[Stroke]:
    count = max(1, round(hypot(end[0] - start[0], end[1] - start[1]) / dash_px)) | 1  # odd: a dash at each end
    x, y = ([round(start[axis] + (end[axis] - start[axis]) * i / count) for i in range(count + 1)] for axis in (0, 1))
    return [((x[i], y[i]), (x[i + 1], y[i + 1])) for i in range(0, count, 2)]


def _heading(canvas: _Canvas, mark: _Mark) -> list[Stroke]:
    """Return a line from the box's edge, as long as the way in VELOCITY_S but at most an eighth of the image."""
    speed = hypot(*mark.velocity_px_s) * canvas.scale  # image pixels per second
    if speed * VELOCITY_S < 3 or mark.state is TrackState.TENTATIVE:
        return []
    x, y = (component * canvas.scale / speed for component in mark.velocity_px_s)
    left, top, right, bottom = canvas.around(mark.xyxy)
    half_x, half_y = (right - left) / 2, (bottom - top) / 2
    start = min(half_x / abs(x) if x else inf, half_y / abs(y) if y else inf) + 2
    end = start + min(max(speed * VELOCITY_S, 5), canvas.height / 8)
    tail, head = ((round(left + half_x + x * d), round(top + half_y + y * d)) for d in (start, end))
    return [(tail, head)]


def _write_labels(canvas: _Canvas, marks: Sequence[_Mark]) -> None:
    """Write each label where it covers least: targets first of all, then other labels, then lines."""
    busy = canvas.own.view(np.uint8) * 128
    for mark in marks:
        for box in (canvas.around(mark.xyxy), _bounds(_heading(canvas, mark), 1)):
            busy[canvas.clip(box)] |= 1
    for mark in filter(lambda mark: mark.text, marks):
        plate = _seat(busy, canvas, canvas.around(mark.xyxy), mark.text)
        _label(canvas, plate, mark)
        busy[canvas.clip(plate)] |= 16


def _seat(busy: Image, canvas: _Canvas, box: Box, text: str) -> Box:
    """Return the first of the places around the box, inside the image, that covers least."""
    (left, top, right, bottom), gap = box, 5
    width = cv2.getTextSize((0, 0), text, (0, 0), _FONT, canvas.font_px, 600)[2] + 8 + canvas.line_px
    height = canvas.font_px + 5
    above, below, before, behind = top - height - 3, bottom + 4, left - gap - width, right + gap
    places = [(x, y) for x in (left - 1, right + 2 - width) for y in (above, below)]
    places += [(x, y) for y in (top, bottom - height, above, below) for x in (behind, before)]
    places += [(x, y) for y in (0, canvas.height) for x in (0, canvas.width)]
    corners = [(max(0, min(x, canvas.width - width)), max(0, min(y, canvas.height - height))) for x, y in places]
    plates = [(x, y, x + width, y + height) for x, y in corners]
    return min(plates, key=lambda plate: int(busy[canvas.clip(plate)].sum()))


def _label(canvas: _Canvas, plate: Box, mark: _Mark) -> None:
    part = canvas.image[canvas.clip(plate)]
    part[:] = np.rint(part * (1 - PLATE) + np.array(DARK) * PLATE)
    bar_px = 1 + canvas.line_px
    part[:, :bar_px] = mark.rgb
    ink = WHITE if mark.state is TrackState.CONFIRMED else mark.rgb
    at = (plate[0] + bar_px + 3, plate[1] + canvas.font_px)
    cv2.putText(canvas.image, mark.text, at, ink, _FONT, canvas.font_px, 600)
