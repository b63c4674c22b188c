"""Procedural scenes with exact masks: demo cameras, ground truth for end-to-end tests, endless training data.

In: a seed, a frame size, a look, a cast; then a time in seconds.  Out: an RGB frame, uint8 (H, W, 3), and the ground
truth of each object in it.  Both are functions of seed and time alone (no state, clock or files), so frames can be
rendered in any order.  Sky, clouds, terrain and noise are drawn once.  Objects are 3D models (x forward, y left, z up,
about 1 wide) in the view of a camera that is tilted up, drawn supersampled and blended, with subpixel motion.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import ceil, cos, floor, radians, remainder, sin, tau
from typing import Literal

import cv2
import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import ArrayLike, NDArray

Image = NDArray[np.uint8]
Floats = NDArray[np.floating]
Rgb = tuple[int, int, int]
Part = tuple[tuple[tuple[float, float, float], ...], float, Rgb, bool]  # points, line width (0: filled), colour, paired
Pose = tuple[float, ...]  # x_px, y_px, width_px, and in radians yaw, pitch (nose down), roll (right down)
Window = tuple[slice, slice]  # rows and columns of a frame
Actor = Literal["quadcopter", "fixed_wing", "bird", "airplane"]

CAST: tuple[Actor, ...] = ("airplane", "fixed_wing", "quadcopter", "bird", "bird", "bird")  # far to near
ELEVATION = radians(20)  # depth shows on the screen as its sine, height as its cosine
SUPERSAMPLING = 6
FAINTEST = 0.08  # coverage below which an object is invisible
NOISE_ROOM_PX = 97  # the noise tile is this much larger than the frame, and shifted at random for every frame
GAIN_STEP_S = 6.5  # an infrared camera's gain control jumps this often


class Look(StrEnum):
    """The light and the band of a scene."""

    DAY = "day"
    DUSK = "dusk"
    FOG = "fog"
    INFRARED_WHITE_HOT = "infrared_white_hot"
    INFRARED_BLACK_HOT = "infrared_black_hot"


@dataclass(frozen=True)
class Truth:
    """One object in one frame; where objects overlap, a pixel belongs to the nearer one.

    `id` is its index in the cast, `kind` uav, bird, airplane or helicopter, `xyxy` its tight box in frame pixels (right
    and bottom exclusive), and `mask` its mask within that box.
    """

    id: int
    kind: str
    xyxy: tuple[float, float, float, float]
    mask: NDArray[np.bool_]

    @property
    def window(self) -> Window:
        """Return the rows and columns of `mask`."""
        left, top, right, bottom = map(int, self.xyxy)
        return slice(top, bottom), slice(left, right)


@dataclass(frozen=True)
class Palette:
    """Colours and optics of a look."""

    zenith: Rgb
    horizon: Rgb
    cloud: tuple[Rgb, Rgb]  # in shadow, lit
    land: tuple[Rgb, Rgb, Rgb]  # hills, trees, field
    haze: float  # exponent of the way from zenith to horizon
    noise: float  # standard deviation, grey levels
    blur_px: float  # standard deviation of the optics, on objects
    objects: tuple[float, float, Rgb]  # factor of their own colours; ratio and colour of haze or heat mixed in


# fmt: off
PALETTES = {  # the other looks are infrared
    Look.DAY: Palette((72, 122, 186), (152, 178, 204), ((170, 182, 200), (232, 235, 240)),
                      ((92, 106, 116), (74, 70, 58), (86, 94, 60)), 1.3, 1.2, 0.9, (1.0, 0.06, (140, 165, 195))),
    Look.DUSK: Palette((58, 74, 118), (214, 150, 112), ((92, 92, 122), (188, 142, 138)),
                       ((52, 52, 64), (28, 27, 30), (42, 42, 34)), 2.2, 2.0, 1.0, (0.6, 0.15, (120, 100, 110))),
    Look.FOG: Palette((176, 182, 188), (196, 198, 200), ((160, 165, 172), (212, 213, 214)),
                      ((178, 182, 184), (136, 140, 140), (138, 142, 128)), 1.0, 1.0, 1.0, (1.0, 0.45, (186, 190, 194)))}
INFRARED = Palette((104,) * 3, (14,) * 3, ((100,) * 3, (190,) * 3),
                   ((150,) * 3, (214,) * 3, (118,) * 3), 4.0, 1.6, 1.7, (0.0, 0.95, (255,) * 3))
DARK, PLUM, GREY, SHADE, PALE = (46, 43, 54), (66, 54, 60), (66, 66, 74), (104, 108, 120), (132, 131, 140)
MODELS: dict[Actor, list[Part]] = {  # without moving parts
    "quadcopter": [(((-.12, 0, 0), (.12, 0, 0)), .15, DARK, False), (((0, 0, .06), (0, 0, .08)), .12, PLUM, False)],
    "bird": [(((.2, 0, 0), (-.16, 0, 0)), .11, GREY, False), (((-.16, 0, 0), (-.3, 0, 0)), .07, DARK, False)],
    "fixed_wing": [  # wing, tail; boom, hull; light on the hull
        (((.12, 0, .03), (.09, .5, .08), (-.01, .5, .08), (-.06, 0, .03)), 0, DARK, True),
        (((-.36, 0, .02), (-.4, .16, .12), (-.48, .16, .12), (-.46, 0, .02)), 0, DARK, True),
        (((.02, 0, 0), (-.46, 0, .02)), .05, GREY, False), (((.22, 0, 0), (.02, 0, 0)), .11, GREY, False),
        (((.2, 0, .035), (-.02, 0, .045)), .035, PALE, False)],
    "airplane": [  # wing, tail, fin; hull; light on the hull, engines
        (((.1, .03, -.02), (-.08, .5, .03), (-.15, .5, .03), (-.1, .03, -.02)), 0, GREY, True),
        (((-.4, 0, .03), (-.48, .18, .04), (-.53, .18, .04), (-.5, 0, .03)), 0, GREY, True),
        (((-.34, 0, .04), (-.49, 0, .22), (-.55, 0, .22), (-.5, 0, .03)), 0, GREY, False),
        (((.46, 0, 0), (-.36, 0, 0)), .1, SHADE, False), (((-.3, 0, .01), (-.52, 0, .03)), .06, SHADE, False),
        (((.44, 0, .03), (-.34, 0, .03)), .035, PALE, False), (((.07, .17, -.05), (-.03, .17, -.05)), .06, GREY, True)]}
# Ranges of width in px, of height in frame heights, and of speed in px/s; distance out of view in frame widths, and
# slope; amplitudes (two across, two down) in frame sizes, and their angular frequencies in rad/s.
FLIGHTS: dict[Actor, tuple[tuple[float, ...], ...]] = {
    "fixed_wing": ((24, 30), (.26, .28), (0, 0), (0, 0), (.3, .08, .07, .025), (.25, .57, .25, .57)),
    "bird": ((8, 13), (.2, .55), (25, 60), (.7, 0), (.06, .03, .1, .05), (.9, 2.1, .6, 1.3)),
    "airplane": ((34, 42), (.05, .08), (55, 70), (.9, .04), (0, 0, 0, 0), (0, 0, 0, 0))}
# fmt: on


def rotors(time_s: float) -> list[Part]:
    """Return a quadcopter's arms, light in front and dark behind, its legs, and its blades at one moment."""
    parts: list[Part] = []
    for x, y in ((0.3, 0.3), (0.3, -0.3), (-0.3, 0.3), (-0.3, -0.3)):
        u, v = 0.2 * cos(97.3 * time_s + 5 * x + 9 * y), 0.2 * sin(97.3 * time_s + 5 * x + 9 * y)
        parts.append((((x - u, y - v, 0.1), (x + u, y + v, 0.1)), 0.035, DARK, False))
        parts.append((((0, 0, 0), (x, y, 0.02)), 0.06, PALE if x > 0 else PLUM, False))
        parts.append((((x, y, 0.09), (1.05 * x, 1.05 * y, -0.14)), 0.06, DARK, False))
    return parts


def wings(phase: float) -> list[Part]:
    """Return a bird's wings of two segments, the outer one lagging behind the inner one."""
    inner, outer = 0.15 + 0.75 * sin(phase), 0.05 + 0.75 * sin(phase) + 0.6 * sin(phase - 1.2)
    y, z = 0.24 * cos(inner), 0.24 * sin(inner)
    front, back, tip = (0.12, y, z), (-0.08, y, z), (0.0, y + 0.26 * cos(outer), z + 0.26 * sin(outer))
    return [(((0.1, 0, 0), front, back, (-0.1, 0, 0)), 0, DARK, True), ((front, tip, back), 0, DARK, True)]


def hovering(rng: Generator, time_s: float, width_px: int, height_px: int) -> Pose:
    """Return the pose of an object that hovers, flies straight at constant speed to the next place, and so on."""
    unit, count = width_px / 640, 12
    x = width_px * (rng.uniform(0.08, 0.42, count) + 0.5 * (np.arange(count) % 2))
    y = height_px * rng.uniform(0.44, 0.58, count)  # below the other UAV, so that neither occludes the other
    knots_s = np.cumsum(rng.uniform((0.4, 4), (1.6, 8), (count, 2)))  # ends of hovers and of flights
    places = np.roll(np.column_stack((x, y)).repeat(2, axis=0), -1, axis=0)
    around_s = time_s + np.array((-0.15, 0, 0.15))  # so that it gradually tilts into its motion
    x, y = (np.interp(around_s, knots_s, axis, period=knots_s[-1]) for axis in places.T)
    p, q = rng.uniform(0, tau, 2).tolist()
    size = unit * rng.uniform(22, 29) * (1 + 0.15 * sin(0.17 * time_s + q))
    lean, yaw = 0.012 * float(x[2] - x[0]) / unit, q + 0.9 * sin(0.23 * time_s + p)
    sway_x, sway_y = 1.2 * unit * sin(1.9 * time_s + p), 0.9 * unit * sin(2.3 * time_s + q)
    return float(x[1]) + sway_x, float(y[1]) + sway_y, size, yaw, lean * cos(yaw), lean * sin(yaw)


def gliding(rng: Generator, time_s: float, width_px: int, height_px: int, actor: Actor) -> Pose:
    """Return the pose of an object in smooth, banked curves; if it has speed, it crosses the frame again and again."""
    sizes_px, levels, speeds, (away, slope), swings, rates = FLIGHTS[actor]
    unit, room_px, side = width_px / 640, away * width_px, int(rng.choice((-1, 1)))
    size_px, level, drift = (rng.uniform(low, high) for low, high in (sizes_px, levels, speeds))
    start_px = width_px * (0.5 - side * (1.15 if actor == "airplane" else rng.uniform(0, 1.2 * away)))
    around_s = time_s + np.array((-0.1, 0, 0.1))  # three places make two headings, and those a turn
    phases = np.outer(around_s, rates * rng.uniform(0.8, 1.2, 4)) + rng.uniform(0, tau, 4)
    a, b, c, d = (np.array(swings) * np.sin(phases)).T
    x = (start_px + side * unit * drift * around_s + room_px) % (width_px + 2 * room_px) - room_px + width_px * (a + b)
    y = height_px * (level + c + d) + slope * x
    before, yaw = np.arctan2(np.diff(y) / sin(ELEVATION), np.diff(x)).tolist()
    return float(x[1]), float(y[1]), unit * size_px, yaw, 0.0, max(-0.7, min(0.7, -12 * remainder(yaw - before, tau)))


def fractal(rng: Generator, height: int, width: int, cell: tuple[int, int], octaves: int) -> Floats:
    """Return noise in 0..1 around 0.5, periodic in x if `width` is a multiple of the coarsest cell (height, width)."""
    total = np.full((height, width), 0.5, np.float32)
    for octave in range(octaves):
        high, wide = max(cell[0] >> octave, 1), max(cell[1] >> octave, 1)
        grid = rng.random((ceil(height / high) + 4, ceil(width / wide)), np.float32)
        grid = np.concatenate((grid[:, -2:], grid, grid[:, :2]), axis=1)  # the cubic filter's reach, on both sides
        large = cv2.resize(grid, None, fx=wide, fy=high, interpolation=cv2.INTER_CUBIC)
        total += (large[2 * high :, 2 * wide :][:height, :width] - 0.5) * 0.7 * 0.5**octave
    return total.clip(0, 1)


def mix(a: Sequence[int] | Image | Floats, b: Sequence[int] | Image | Floats, share: Floats) -> Floats:
    """Blend two colours by a ratio of the second at each pixel."""
    return np.asarray(a, np.float32) + np.subtract(b, a, dtype=np.float32) * share[..., None]


def to_bytes(values: ArrayLike) -> Image:
    """Round and clip values to uint8."""
    return np.asarray(np.rint(values).clip(0, 255), np.uint8)


def cloudscape(rng: Generator, look: Palette, height: int, width: int, clouds: float) -> Image:
    """Return a sky, periodic in x, with soft clouds that are flatter and fainter towards the horizon."""
    down = np.linspace(0, 1.25, height, dtype=np.float32)[:, None].clip(0, 1)
    across, rows = np.meshgrid(np.arange(width, dtype=np.float32), 1.5 * height * down**1.6)
    density = cv2.remap(fractal(rng, 2 * height, width, (160, 320), 5), across, rows, cv2.INTER_LINEAR)
    share = clouds * (0.5 - 0.5 * np.cos(np.pi * ((density - 0.45) / 0.4).clip(0, 1))) * (1 - 0.6 * down)
    above = np.roll(cv2.GaussianBlur(density, (0, 0), 9), 10, axis=0)
    cloud = mix(*look.cloud, (0.5 + 5 * (density - above)).clip(0, 1))
    return to_bytes(mix(mix(look.zenith, look.horizon, down**look.haze), cloud, share))


def terrain(rng: Generator, look: Palette, height: int, width: int) -> tuple[int, Image, Floats]:
    """Return hills, trees and a field: their top row, and from there on colours (h, W, 3) and coverage (h, W)."""
    y = np.arange(height, dtype=np.float32)[:, None]
    swell, crowns = (fractal(rng, 3, width, cell, 5) for cell in ((2, 160), (2, 32)))
    tops = (0.8 - 0.06 * swell[0], 0.83 - 0.06 * crowns[0] * (0.4 + swell[1]), 0.855 + 0.03 * swell[2])
    rgb, cover = mix(look.land[0], look.land[0], y * np.zeros(width, np.float32)), np.zeros((height, width), np.float32)
    for colour, top, cell, depth in zip(look.land, tops, ((8, 8), (24, 4), (4, 40)), (0.1, 0.8, 0.4), strict=True):
        texture = 1 + depth * (fractal(rng, height, width, cell, 3) - 0.5)
        share = (0.5 + (y - height * top) / 1.5).clip(0, 1)
        rgb, cover = mix(rgb, mix((0, 0, 0), colour, texture), share), np.maximum(cover, share)
    top_px = int(np.argmax(cover.any(axis=1)))
    return top_px, to_bytes(rgb[top_px:]), cover[top_px:]


def stamp(parts: list[Part], pose: Pose, scale: float, blur_px: float) -> tuple[int, int, Floats]:
    """Draw a model; return left, top and a patch (H, W, 4) of premultiplied colours and coverage, 0..255."""
    x_px, y_px, width_px, *angles = pose[0], pose[1], pose[2] * scale, *pose[3:]
    turned = width_px * np.array(((1, 0, 0), (0, 0, -1), (0, 1, 0)))  # to the right, down, away
    for axis, angle in ((0, -ELEVATION), *zip((2, 1, 0), angles, strict=True)):
        turned = turned @ cv2.Rodrigues(angle * np.eye(3)[axis])[0]
    shapes = []
    for points, width, rgb, paired in parts:
        for side in (1, -1) if paired else (1,):
            seen = (np.array(points) * (1, side, 1)) @ turned.T + (x_px, y_px, 0)
            shapes.append((-float(seen[:, 2].mean()), seen[:, :2], width * width_px, (*rgb, 255)))
    corners = np.concatenate([xy for _, xy, _, _ in shapes])
    margin = max(line for _, _, line, _ in shapes) / 2 + 3 * blur_px
    origin = np.floor(corners.min(axis=0) - margin).astype(int)
    columns, rows = (np.ceil(corners.max(axis=0) + margin).astype(int) - origin).tolist()
    canvas = np.zeros((rows * SUPERSAMPLING, columns * SUPERSAMPLING, 4), np.uint8)
    for _, xy, line, ink in sorted(shapes, key=lambda shape: shape[0]):  # far to near
        fixed = np.rint((xy - origin) * (SUPERSAMPLING << 4) - 8).astype(np.int32)  # 4 bits of fraction
        cv2.fillPoly(canvas, [fixed], ink, cv2.LINE_8, 4)
        cv2.polylines(canvas, [fixed], False, ink, max(1, round(line * SUPERSAMPLING)), cv2.LINE_8, 4)
    small = cv2.resize(canvas, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.float32)
    return int(origin[0]), int(origin[1]), np.asarray(cv2.GaussianBlur(small, (0, 0), blur_px), np.float32)


@dataclass(eq=False)
class Scene:
    """An endless scene, whose frame and ground truth `render` returns at any time.

    Attributes:
        seed: decides everything random.
        width_px: of the frame.
        height_px: of the frame.
        look: light and band.
        cast: the objects, far to near.
        clouds: density in 0..1; a network trained on clear skies alone detects less under dense clouds.
        scale: size of the objects; at 1 and 640 pixels of width, UAVs are 15 to 42 px wide.
    """

    seed: int
    width_px: int = 640
    height_px: int = 512
    look: Look = Look.DAY
    cast: Sequence[Actor] = CAST
    clouds: float = 0.3
    scale: float = 1.0

    def __post_init__(self) -> None:
        if min(self.width_px, self.height_px) < 64:
            raise ValueError(f"frame of {self.width_px}x{self.height_px} pixels: must be 64x64 or larger")
        self._palette = palette = PALETTES.get(Look(self.look), INFRARED)
        self._period_px = ceil(self.width_px / 320) * 1280
        sky = cloudscape(default_rng((self.seed, 1)), palette, self.height_px, self._period_px, self.clouds)
        self._sky = np.concatenate((sky, sky[:, : self.width_px + 1]), axis=1)
        self._ground = terrain(default_rng((self.seed, 2)), palette, self.height_px, self.width_px)
        channels = 1 if palette is INFRARED else 3
        shape = (self.height_px + NOISE_ROOM_PX, self.width_px + NOISE_ROOM_PX, channels)
        noise = default_rng((self.seed, 3)).normal(0, 1.5 * palette.noise, shape).repeat(3 // channels, axis=2)
        self._noise = to_bytes(128 + np.asarray(cv2.GaussianBlur(noise, (0, 0), 0.5)))

    def render(self, time_s: float) -> tuple[Image, list[Truth]]:
        """Return the frame at a time, uint8 RGB (H, W, 3), and its visible objects, far to near."""
        frame = self._background(time_s)
        levels = np.arange(256, dtype=np.uint8)
        if self._palette is INFRARED:
            gain, offset = default_rng((self.seed, 6, abs(floor(time_s / GAIN_STEP_S)))).uniform((0.85, -9), (1.15, 9))
            hot = to_bytes(levels * gain + offset)
            levels = 255 - hot if self.look == Look.INFRARED_BLACK_HOT else hot
            cv2.LUT(frame, levels, dst=frame)
        owner = np.full(frame.shape[:2], -1, np.int16)
        windows = [self._draw(frame, owner, levels, place, time_s) for place in range(len(self.cast))]
        row, column = default_rng((self.seed, 5, abs(round(time_s * 1e6)))).integers(NOISE_ROOM_PX, size=2).tolist()
        cv2.addWeighted(frame, 1, self._noise[row:, column:][: self.height_px, : self.width_px], 1, -128, dst=frame)
        return frame, [seen for place, at in enumerate(windows) if (seen := self._truth(owner[at] == place, place, at))]

    def _background(self, time_s: float) -> Image:
        offset_px = 3.0 * self.width_px / 640 * time_s
        start, share = floor(offset_px) % self._period_px, offset_px - floor(offset_px)
        here, beside = (self._sky[:, left : left + self.width_px] for left in (start, start + 1))
        frame = np.asarray(cv2.addWeighted(here, 1 - share, beside, share, 0), np.uint8)
        top_px, land, cover = self._ground
        cv2.blendLinear(frame[top_px:], land, 1 - cover, cover, dst=frame[top_px:])
        return frame

    def _draw(self, frame: Image, owner: NDArray[np.int16], levels: Image, place: int, time_s: float) -> Window:
        """Blend an object into the frame, mark its pixels as its own, and return their window."""
        actor, rng, size = self.cast[place], default_rng((self.seed, 4, place)), (self.width_px, self.height_px)
        phase = tau * rng.uniform(3, 8) * time_s  # of a bird's wing beat
        moving = rotors(time_s) if actor == "quadcopter" else wings(phase) if actor == "bird" else []
        pose = hovering(rng, time_s, *size) if actor == "quadcopter" else gliding(rng, time_s, *size, actor)
        left, top, patch = stamp(MODELS[actor] + moving, pose, self.scale, self._palette.blur_px)
        x0, y0 = max(left, 0), max(top, 0)
        window = slice(y0, max(y0, top + patch.shape[0])), slice(x0, max(x0, left + patch.shape[1]))
        under = frame[window]
        patch = patch[y0 - top :, x0 - left :][: under.shape[0], : under.shape[1]]
        share = ((patch[..., 3] / 255 - FAINTEST) / (1 - FAINTEST)).clip(0, 1)
        gain, veil, tint = self._palette.objects
        own = mix(patch[..., :3] * (gain * 255 / patch[..., 3:].clip(1)), tint, np.full_like(share, veil))
        drawn = to_bytes(mix(under, levels[to_bytes(own)], share))
        owner[window][(drawn != under).any(axis=2)] = place
        under[:] = drawn
        return window

    def _truth(self, mask: NDArray[np.bool_], place: int, window: Window) -> Truth | None:
        x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
        left, top, actor = window[1].start + x, window[0].start + y, self.cast[place]
        kind = "uav" if actor in ("quadcopter", "fixed_wing") else actor
        box = (float(left), float(top), float(left + width), float(top + height))
        return Truth(place, kind, box, mask[y : y + height, x : x + width]) if width else None
