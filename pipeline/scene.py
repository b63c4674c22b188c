"""Procedural scenes with exact masks: demo cameras, truth for end-to-end tests, an endless training set.

In: a seed, a frame size, a look, a cast, and then a time in seconds.  Out: an RGB frame, uint8 (H, W, 3), and the truth
of every object in it.  All is a closed function of seed and time: no state, no clock, no files, so frames may be asked
for in any order.  What is large (sky, clouds, terrain, noise) is drawn once, in the constructor.

Objects are small 3D models (x forward, y left, z up, about 1 wide), seen by a camera that looks up by ELEVATION, drawn
supersampled and blended, so that they move by fractions of a pixel.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import atan2, ceil, cos, floor, pi, radians, remainder, sin, tau

import cv2
import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]
Rgb = tuple[int, int, int]
Part = tuple[tuple[tuple[float, float, float], ...], float, Rgb, bool]  # points, width, colour, mirrored to the right too
Path = Callable[[float], tuple[float, ...]]  # time_s -> x_px, y_px, width_px, yaw, pitch (nose down), roll (right down)

ELEVATION = radians(20)  # depth shows on the screen as its sine, height as its cosine
SUPERSAMPLING = 6
BLUR_PX = 0.55  # sigma of the optics, on objects
FAINTEST = 0.08  # coverage below which a sensor shows nothing of an object
NOISE_ROOM_PX = 97  # the noise tile is this much larger than the frame, and shifted at random for every frame
GAIN_STEP_S = 6.5  # an infrared camera's gain control jumps this often


class Look(StrEnum):
    DAY = "day"
    DUSK = "dusk"
    FOG = "fog"
    INFRARED_WHITE_HOT = "infrared_white_hot"
    INFRARED_BLACK_HOT = "infrared_black_hot"


class Actor(StrEnum):
    QUADCOPTER = "quadcopter"
    FIXED_WING = "fixed_wing"
    BIRD = "bird"
    AIRPLANE = "airplane"


CAST = (Actor.AIRPLANE, Actor.FIXED_WING, Actor.QUADCOPTER, Actor.BIRD, Actor.BIRD, Actor.BIRD)  # far to near


@dataclass(frozen=True)
class Truth:
    """One object in one frame.  Where objects overlap, the nearer one has the pixel."""

    id: int  # its place in the cast
    kind: str  # uav | bird | airplane | helicopter
    xyxy: tuple[float, float, float, float]  # frame pixels, tight around the mask, right and bottom exclusive
    mask: NDArray[np.bool_]  # cut to the box

    @property
    def window(self) -> tuple[slice, slice]:
        """The rows and columns of the frame that `mask` covers."""
        left, top, right, bottom = map(int, self.xyxy)
        return slice(top, bottom), slice(left, right)


@dataclass(frozen=True)
class Palette:
    zenith: Rgb
    horizon: Rgb
    cloud: tuple[Rgb, Rgb]  # in shadow, lit
    land: tuple[Rgb, Rgb, Rgb]  # hills, trees, field
    haze: float  # exponent of the way from zenith to horizon
    noise: float  # standard deviation, grey levels
    gain: float  # an object's own colours times this ...
    veil: float  # ... mixed with this share of ...
    tint: Rgb  # ... this: haze or heat


# fmt: off
DAY = Palette((72, 122, 186), (152, 178, 204), ((170, 182, 200), (232, 235, 240)),
              ((92, 106, 116), (74, 70, 58), (86, 94, 60)), 1.3, 1.2, 1.0, 0.06, (140, 165, 195))
DUSK = Palette((58, 74, 118), (214, 150, 112), ((92, 92, 122), (188, 142, 138)),
               ((52, 52, 64), (28, 27, 30), (42, 42, 34)), 1.3, 2.0, 0.5, 0.05, (120, 100, 110))
FOG = Palette((176, 182, 188), (196, 198, 200), ((160, 165, 172), (212, 213, 214)),
              ((178, 182, 184), (136, 140, 140), (138, 142, 128)), 1.0, 1.0, 1.0, 0.35, (186, 190, 194))
INFRARED = Palette((104,) * 3, (14,) * 3, ((100,) * 3, (190,) * 3),
                   ((150,) * 3, (214,) * 3, (118,) * 3), 4.0, 1.6, 0.3, 0.9, (255,) * 3)
PALETTES = {Look.DAY: DAY, Look.DUSK: DUSK, Look.FOG: FOG}  # a look that is not here is infrared

DARK, PLUM, GREY, SHADE, PALE = (46, 43, 54), (84, 66, 70), (66, 66, 74), (92, 95, 106), (188, 188, 196)
FIXED_WING: list[Part] = [
    (((.12, 0, .03), (.09, .5, .08), (-.01, .5, .08), (-.06, 0, .03)), 0, DARK, True),  # wing
    (((-.36, 0, .02), (-.4, .16, .12), (-.48, .16, .12), (-.46, 0, .02)), 0, DARK, True),  # tail
    (((.02, 0, 0), (-.46, 0, .02)), .05, GREY, False), (((.22, 0, 0), (.02, 0, 0)), .11, GREY, False),
    (((.2, 0, .035), (-.02, 0, .045)), .035, PALE, False),
]
AIRPLANE: list[Part] = [
    (((.1, .03, -.02), (-.08, .5, .03), (-.15, .5, .03), (-.1, .03, -.02)), 0, GREY, True),  # wing
    (((-.4, 0, .03), (-.48, .18, .04), (-.53, .18, .04), (-.5, 0, .03)), 0, GREY, True),  # tail
    (((-.34, 0, .04), (-.49, 0, .22), (-.55, 0, .22), (-.5, 0, .03)), 0, GREY, False),  # fin
    (((.46, 0, 0), (-.36, 0, 0)), .1, SHADE, False), (((-.3, 0, .01), (-.52, 0, .03)), .06, SHADE, False),
    (((.44, 0, .03), (-.34, 0, .03)), .035, PALE, False), (((.07, .17, -.05), (-.03, .17, -.05)), .06, GREY, True),
]
# fmt: on


def quadcopter(time_s: float) -> list[Part]:
    """Light arms in front, dark ones behind, a leg under each motor, and over it a blade as the shutter caught it."""
    parts: list[Part] = [(((-0.12, 0, 0), (0.12, 0, 0)), 0.15, DARK, False), (((0, 0, 0.06), (0, 0, 0.1)), 0.12, PLUM, False)]
    for x, y in ((0.3, 0.3), (0.3, -0.3), (-0.3, 0.3), (-0.3, -0.3)):
        angle = 97.3 * time_s + 5 * x + 9 * y
        u, v = 0.2 * cos(angle), 0.2 * sin(angle)
        parts.append((((x - u, y - v, 0.1), (x + u, y + v, 0.1)), 0.035, DARK, False))
        parts.append((((0, 0, 0), (x, y, 0.02)), 0.06, PALE if x > 0 else PLUM, False))
        parts.append((((x, y, 0.09), (x, y, -0.02)), 0.075, DARK, False))
        parts.append((((x, y, 0), (1.07 * x, 1.07 * y, -0.2)), 0.05, DARK, False))
    return parts


def bird(phase: float) -> list[Part]:
    """Wings of two segments; the outer one follows the inner one late."""
    inner = 0.15 + 0.75 * sin(phase)
    outer = inner - 0.1 + 0.6 * sin(phase - 1.2)
    elbow_y, elbow_z = 0.24 * cos(inner), 0.24 * sin(inner)
    front, back = (0.12, elbow_y, elbow_z), (-0.08, elbow_y, elbow_z)
    tip = (0.0, elbow_y + 0.26 * cos(outer), elbow_z + 0.26 * sin(outer))
    wing: list[Part] = [(((0.1, 0, 0), front, back, (-0.1, 0, 0)), 0, DARK, True), ((front, tip, back), 0, DARK, True)]
    return [*wing, (((0.2, 0, 0), (-0.16, 0, 0)), 0.11, GREY, False), (((-0.16, 0, 0), (-0.3, 0, 0)), 0.07, DARK, False)]


def model(actor: Actor, time_s: float, beat: float) -> list[Part]:
    """The shape at a time; `beat` (0..1) sets a bird's wing beat (3..8 Hz)."""
    if actor is Actor.BIRD:
        return bird(tau * ((3 + 5 * beat) * time_s + beat))
    if actor is Actor.QUADCOPTER:
        return quadcopter(time_s)
    return FIXED_WING if actor is Actor.FIXED_WING else AIRPLANE


def hovering(rng: Generator, width_px: int, height_px: int) -> Path:
    """Hover, fly straight at constant speed to the next place, hover again, round and round."""
    unit, count = width_px / 640, 12
    x = width_px * (rng.uniform(0.08, 0.42, count) + 0.5 * (np.arange(count) % 2))
    y = height_px * rng.uniform(0.24, 0.62, count)
    x_next, y_next = np.roll(x, -1), np.roll(y, -1)
    travel_s = np.hypot(x_next - x, y_next - y) / (unit * rng.uniform(35, 90, count))
    ends_s = np.cumsum(travel_s + rng.uniform(0.4, 1.6, count))
    size_px, p, q = unit * rng.uniform(26, 34), *rng.uniform(0, tau, 2)

    def path(time_s: float) -> tuple[float, ...]:
        t = time_s % ends_s[-1]
        k = int(np.searchsorted(ends_s, t, side="right")) % count
        left = min((ends_s[k] - t) / travel_s[k], 1.0)  # 1 while it hovers, then down to 0
        lean = min(1.0, 8 * left, 8 * (1 - left)) * (0.3 if x_next[k] > x[k] else -0.3)
        yaw = q + 0.9 * sin(0.23 * time_s + p)
        at_x = x_next[k] + left * (x[k] - x_next[k]) + 1.2 * unit * sin(1.9 * time_s + p)
        at_y = y_next[k] + left * (y[k] - y_next[k]) + 0.9 * unit * sin(2.3 * time_s + q)
        return at_x, at_y, size_px * (1 + 0.15 * sin(0.17 * time_s + q)), yaw, lean * cos(yaw), lean * sin(yaw)

    return path


def gliding(rng: Generator, width_px: int, height_px: int, small: bool) -> Path:
    """Wide smooth turns that stay in view; a small thing (a bird) also drifts across, out and in on the other side."""
    unit, room = width_px / 640, 0.15 * width_px
    drift = unit * rng.uniform(25, 60) * rng.choice((-1, 1)) if small else 0.0
    start = width_px * (rng.uniform(0, 1) if small else 0.5)
    size_px = unit * (rng.uniform(10, 18) if small else rng.uniform(30, 38))
    reach = np.array((0.06, 0.03, 0.1, 0.05) if small else (0.3, 0.08, 0.12, 0.05))
    rate = np.array((0.9, 2.1, 0.6, 1.3) if small else (0.25, 0.57, 0.25, 0.57)) * rng.uniform(0.8, 1.2, 4)
    phase, level = rng.uniform(0, tau, 4), rng.uniform(0.2, 0.55) if small else 0.38

    def place(time_s: float) -> tuple[float, float]:
        a, b, c, d = (reach * np.sin(rate * time_s + phase)).tolist()
        x = (start + drift * time_s + room) % (width_px + 2 * room) - room
        return x + width_px * (a + b), height_px * (level + c + d)

    def path(time_s: float) -> tuple[float, ...]:
        (x0, y0), (x, y), (x1, y1) = place(time_s - 0.1), place(time_s), place(time_s + 0.1)
        before, yaw = (atan2(v / sin(ELEVATION), u) for u, v in ((x - x0, y - y0), (x1 - x, y1 - y)))
        return x, y, size_px, yaw, 0.0, max(-0.7, min(0.7, -12 * remainder(yaw - before, tau)))  # banks into the turn

    return path


def crossing(seed: int, width_px: int, height_px: int) -> Path:
    """A straight line across, some seconds away, and another one, to the left or to the right."""
    unit = width_px / 640
    speed, size_px = 62 * unit, 58 * unit
    period_s = (width_px + 2 * size_px) / speed + 6

    def path(time_s: float) -> tuple[float, ...]:
        k = floor(time_s / period_s + 0.25)  # a quarter of its time is over at time 0
        level, climb, side = default_rng((seed, k % 2**32)).uniform((0.06, -0.03, 0), (0.15, 0.03, 1)).tolist()
        x = (time_s + (0.25 - k) * period_s) * speed - size_px
        y = height_px * (level + climb * x / width_px)
        return (x, y, size_px, 0.15, 0.0, 0.0) if side < 0.5 else (width_px - x, y, size_px, pi + 0.15, 0.0, 0.0)

    return path


def fractal(rng: Generator, height: int, width: int, cell: tuple[int, int], octaves: int) -> Floats:
    """Noise in 0..1, about 0.5, periodic in x if the coarsest cell (height, width) fits into `width`."""
    total = np.full((height, width), 0.5, np.float32)
    for octave in range(octaves):
        high, wide = max(cell[0] >> octave, 1), max(cell[1] >> octave, 1)
        grid = rng.random((ceil(height / high) + 4, ceil(width / wide)), np.float32)
        grid = np.concatenate((grid[:, -2:], grid, grid[:, :2]), axis=1)  # the cubic filter's reach, on both sides
        large = cv2.resize(grid, None, fx=wide, fy=high, interpolation=cv2.INTER_CUBIC)
        total += (large[2 * high :, 2 * wide :][:height, :width] - 0.5) * 0.7 * 0.5**octave
    return total.clip(0, 1)


def mix(a: Floats, b: Floats, share: Floats) -> Floats:
    return a + (b - a) * share[..., None]


def cloudscape(rng: Generator, look: Palette, height: int, width: int, clouds: float) -> Image:
    """A sky, periodic in x, with soft clouds that are flatter and fainter towards the horizon."""
    down = np.linspace(0, 1.25, height, dtype=np.float32).clip(0, 1)[:, None]
    sky = mix(np.float32([[look.zenith]]), np.float32([[look.horizon]]), down**look.haze)
    across, rows = np.meshgrid(np.arange(width, dtype=np.float32), 1.5 * height * down**1.6)
    density = cv2.remap(fractal(rng, 2 * height, width, (160, 320), 5), across, rows, cv2.INTER_LINEAR)
    share = ((density - 0.45) / 0.4).clip(0, 1)
    share = clouds * share * share * (3 - 2 * share) * (1 - 0.6 * down)
    above = np.roll(cv2.GaussianBlur(density, (0, 0), 9), 10, axis=0)
    lit = (0.5 + 5 * (density - above)).clip(0, 1)
    return np.rint(mix(sky, mix(*(np.float32([[rgb]]) for rgb in look.cloud), lit), share)).astype(np.uint8)


def terrain(rng: Generator, look: Palette, height: int, width: int) -> tuple[Image, Floats]:
    """Colours (H, W, 3) and coverage (H, W) of hills, a line of trees and a field."""
    y = np.arange(height, dtype=np.float32)[:, None]
    swell, crowns = (fractal(rng, 3, width, cell, 5) for cell in ((2, 160), (2, 32)))
    tops = (0.8 - 0.06 * swell[0], 0.83 - 0.06 * crowns[0] * (0.4 + swell[1]), 0.855 + 0.03 * swell[2])
    rgb, cover = np.full((height, width, 3), look.land[0], np.float32), np.zeros((height, width), np.float32)
    for colour, top, cell, depth in zip(look.land, tops, ((8, 8), (24, 4), (4, 40)), (0.1, 0.8, 0.4), strict=True):
        texture = 1 + depth * (fractal(rng, height, width, cell, 3) - 0.5)
        share = (0.5 + (y - height * top) / 1.5).clip(0, 1)
        rgb, cover = mix(rgb, np.float32([[colour]]) * texture[..., None], share), np.maximum(cover, share)
    return np.rint(rgb).clip(0, 255).astype(np.uint8), cover


def rotation(axis: int, angle: float) -> NDArray[np.float64]:
    matrix, i, j = np.eye(3), (axis + 1) % 3, (axis + 2) % 3
    matrix[i, i], matrix[i, j], matrix[j, i], matrix[j, j] = cos(angle), -sin(angle), sin(angle), cos(angle)
    return matrix


VIEW = np.array(((1, 0, 0), (0, 0, -1), (0, 1, 0))) @ rotation(0, -ELEVATION)  # to the right, down, away


def stamp(parts: list[Part], pose: tuple[float, ...]) -> tuple[int, int, Floats]:
    """Left, top and a patch (H, W, 4) of colours times coverage, and coverage, 0..255."""
    x_px, y_px, width_px, yaw, pitch, roll = pose
    turned = width_px * VIEW @ rotation(2, yaw) @ rotation(1, pitch) @ rotation(0, roll)
    shapes = []
    for points, width, rgb, mirrored in parts:
        for side in (1, -1) if mirrored else (1,):
            seen = (np.array(points) * (1, side, 1)) @ turned.T + (x_px, y_px, 0)
            shapes.append((-float(seen[:, 2].mean()), seen[:, :2], width * width_px, (*rgb, 255)))
    corners = np.concatenate([xy for _, xy, _, _ in shapes])
    margin = max(line for _, _, line, _ in shapes) / 2 + 3 * BLUR_PX
    origin = np.floor(corners.min(axis=0) - margin).astype(int)
    columns, rows = (np.ceil(corners.max(axis=0) + margin).astype(int) - origin).tolist()
    canvas = np.zeros((rows * SUPERSAMPLING, columns * SUPERSAMPLING, 4), np.uint8)
    for _, xy, line, ink in sorted(shapes, key=lambda shape: shape[0]):  # far to near
        fixed = np.rint((xy - origin) * (SUPERSAMPLING << 4) - 8).astype(np.int32)  # 4 bits of fraction
        if line:
            thickness = max(1, round(line * SUPERSAMPLING))
            cv2.line(canvas, fixed[0].tolist(), fixed[1].tolist(), ink, thickness, cv2.LINE_8, 4)
        else:
            cv2.fillPoly(canvas, [fixed], ink, cv2.LINE_8, 4)
    small = cv2.resize(canvas, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.float32)
    return int(origin[0]), int(origin[1]), cv2.GaussianBlur(small, (0, 0), BLUR_PX)


class Scene:
    """An endless scene: `render(time_s)` gives its frame and truth at any time.

    `clouds` (0..1) is how dense they are, `scale` how large the objects.
    """

    def __init__(
        self,
        seed: int,
        width_px: int = 640,
        height_px: int = 512,
        look: Look = Look.DAY,
        cast: Sequence[Actor] = CAST,
        clouds: float = 0.3,
        scale: float = 1.0,
    ) -> None:
        if min(width_px, height_px) < 64:
            raise ValueError(f"frame of {width_px}x{height_px} pixels: allowed: 64x64 or larger")
        self.seed, self.width_px, self.height_px, self.look, self.scale = seed, width_px, height_px, Look(look), scale
        self._palette = palette = PALETTES.get(self.look, INFRARED)
        self._period_px = ceil(width_px / 320) * 1280
        sky = cloudscape(default_rng((seed, 1)), palette, height_px, self._period_px, clouds)
        self._sky = np.concatenate((sky, sky[:, : width_px + 1]), axis=1)
        land, cover = terrain(default_rng((seed, 2)), palette, height_px, width_px)
        self._land_top_px = int(np.argmax(cover.max(axis=1) > 0))
        self._land, self._land_share = land[self._land_top_px :], cover[self._land_top_px :]
        depth = 1 if palette is INFRARED else 3
        noise = default_rng((seed, 3)).normal(0, 1.5 * palette.noise, (height_px + NOISE_ROOM_PX, width_px + NOISE_ROOM_PX, depth))
        self._noise = np.rint(cv2.GaussianBlur(np.broadcast_to(noise, (*noise.shape[:2], 3)), (0, 0), 0.5) + 128).clip(0, 255).astype(np.uint8)
        self._cast = [(actor, *self._enter(actor, default_rng((seed, 4, place)))) for place, actor in enumerate(cast)]

    def _enter(self, actor: Actor, rng: Generator) -> tuple[Path, float]:
        size = self.width_px, self.height_px
        if actor is Actor.AIRPLANE:
            return crossing(int(rng.integers(2**31)), *size), 0.0
        return hovering(rng, *size) if actor is Actor.QUADCOPTER else gliding(rng, *size, actor is Actor.BIRD), rng.random()

    def render(self, time_s: float) -> tuple[Image, list[Truth]]:
        """The frame at a time, uint8 RGB (H, W, 3), and what is seen in it, far to near."""
        frame = self._background(time_s)
        owner = np.full(frame.shape[:2], -1, np.int16)
        boxes = [self._draw(frame, owner, place, time_s) for place in range(len(self._cast))]
        if self._palette is INFRARED:
            cv2.LUT(frame, self._gain(time_s), dst=frame)
        row, column = default_rng((self.seed, 5, round(time_s * 1e6) % 2**64)).integers(NOISE_ROOM_PX, size=2).tolist()
        noise = self._noise[row : row + self.height_px, column : column + self.width_px]
        cv2.addWeighted(frame, 1, noise, 1, -128, dst=frame)
        return frame, [seen for place, box in enumerate(boxes) if (seen := self._truth(owner, place, box))]

    def _background(self, time_s: float) -> Image:
        offset_px = 3.0 * self.width_px / 640 * time_s
        start = floor(offset_px) % self._period_px
        share = offset_px - floor(offset_px)
        here, beside = (self._sky[:, left : left + self.width_px] for left in (start, start + 1))
        frame = cv2.addWeighted(here, 1 - share, beside, share, 0)
        ground = frame[self._land_top_px :]
        ground[:] = cv2.blendLinear(ground, self._land, 1 - self._land_share, self._land_share)
        return frame

    def _draw(self, frame: Image, owner: NDArray[np.int16], place: int, time_s: float) -> tuple[slice, slice]:
        """Blend one object into the frame, enter it as the owner of its pixels, return the window they lie in."""
        actor, path, beat = self._cast[place]
        x, y, size, *angles = path(time_s)
        left, top, patch = stamp(model(actor, time_s, beat), (x, y, size * self.scale, *angles))
        x0, y0 = max(left, 0), max(top, 0)
        window = slice(y0, max(y0, top + patch.shape[0])), slice(x0, max(x0, left + patch.shape[1]))
        under = frame[window]
        patch = patch[y0 - top :, x0 - left :][: under.shape[0], : under.shape[1]]
        cover, look = patch[..., 3:] / 255, self._palette
        share = ((cover - FAINTEST) / (1 - FAINTEST)).clip(0, 1)
        colour = patch[..., :3] / cover.clip(FAINTEST) * look.gain
        under[:] = np.rint(under + (colour + (np.float32(look.tint) - colour) * look.veil - under) * share)
        owner[window][share[..., 0] > 0] = place
        return window

    def _gain(self, time_s: float) -> Image:
        gain, offset = default_rng((self.seed, 6, floor(time_s / GAIN_STEP_S) % 2**32)).uniform((0.85, -12), (1.15, 12))
        grey = np.arange(256) * gain + offset
        return np.rint(255 - grey if self.look is Look.INFRARED_BLACK_HOT else grey).clip(0, 255).astype(np.uint8)

    def _truth(self, owner: NDArray[np.int16], place: int, window: tuple[slice, slice]) -> Truth | None:
        mask = owner[window] == place
        if not mask.any():
            return None
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        y0, y1, x0, x1 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
        top, left = window[0].start, window[1].start
        actor = self._cast[place][0]
        kind = "uav" if actor in (Actor.QUADCOPTER, Actor.FIXED_WING) else actor.value
        return Truth(place, kind, (left + x0, top + y0, left + x1, top + y1), mask[y0:y1, x0:x1])
