"""Videos made by hand, for the tests of motion: a textured world, a camera that turns, noise, and targets."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.segmentation.frame_history import FrameHistory
from pipeline.segmentation.motion import Candidate, MotionCandidates

MARGIN_PX = 150  # of the world around the view at time 0
CLOUDS = 0.3  # texture of a sky with clouds
Image = NDArray[np.float32]
Point = tuple[float, float]


def unchanged(image: Image, time_s: float) -> Image:
    return image


@dataclass(frozen=True)
class Blob:
    """A target: an ellipse, brighter or darker than the world by `contrast` grey levels."""

    x_px: float  # of its centre at time 0
    y_px: float
    speed_px_s: Point = (0.0, 0.0)  # against the world
    size_px: Point = (6.0, 6.0)
    contrast: float = 60.0

    def draw(self, image: Image, x: float, y: float) -> None:
        """Add the target at (x, y); a pixel that it covers in part changes in part."""
        a, b = self.size_px[0] / 2, self.size_px[1] / 2
        left, top = max(0, int(x - a) - 2), max(0, int(y - b) - 2)
        window = image[top : max(0, ceil(y + b) + 2), left : max(0, ceil(x + a) + 2)]
        rows, columns = np.mgrid[: window.shape[0], : window.shape[1]].astype(np.float32) + 0.5
        radius = np.hypot((columns + left - x) / a, (rows + top - y) / b)
        window += self.contrast * np.clip((1 - radius) * min(a, b) + 0.5, 0, 1)

    def box(self, x: float, y: float) -> NDArray[np.float32]:
        """Return its true box (4,) at (x, y)."""
        a, b = self.size_px[0] / 2, self.size_px[1] / 2
        return np.array([x - a, y - b, x + a, y + b], np.float32)


@dataclass
class Scene:
    """What one camera sees; `change` alters each image at the end: gain, flicker, burnt-in text."""

    blobs: Sequence[Blob] = ()
    size_px: tuple[int, int] = (160, 128)
    pan_px_s: Point = (0.0, 0.0)  # of the world over the image
    noise: float = 2.0  # grey levels
    texture: float = 1.0  # contrast of the world
    change: Callable[[Image, float], Image] = unchanged
    seed: int = 1
    _world: Image = field(init=False)

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)
        width, height = self.size_px
        shape = height + 2 * MARGIN_PX, width + 2 * MARGIN_PX
        coarse, fine = (cv2.GaussianBlur(self._random.normal(size=shape), (0, 0), sigma) for sigma in (12, 2))
        structure = 18 * coarse / coarse.std() + 7 * fine / fine.std()
        self._world = (110 + self.texture * structure).astype(np.float32)

    def place(self, blob: Blob, time_s: float) -> Point:
        """Return where a target is in the image."""
        x_px_s, y_px_s = (speed + pan for speed, pan in zip(blob.speed_px_s, self.pan_px_s, strict=True))
        return blob.x_px + x_px_s * time_s, blob.y_px + y_px_s * time_s

    def image(self, time_s: float) -> NDArray[np.uint8]:
        """Return the image at a time, uint8 (H, W)."""
        dx, dy = (pan * time_s - MARGIN_PX for pan in self.pan_px_s)
        assert min(dx, dy) >= -2 * MARGIN_PX and max(dx, dy) <= 0, "the world has an end"
        image = cv2.warpAffine(self._world, np.array([[1, 0, dx], [0, 1, dy]], np.float32), self.size_px)
        for blob in self.blobs:
            blob.draw(image, *self.place(blob, time_s))
        image = self.change(image, time_s)
        image = image + self.noise * self._random.standard_normal(image.shape, np.float32)
        return image.clip(0, 255).round().astype(np.uint8)

    def frames(self, times_s: Sequence[float]) -> Iterator[tuple[NDArray[np.uint8], float, Point | None]]:
        """Yield pixels, presentation times and the background's true shifts."""
        before_s = None
        for time_s in times_s:
            shift = None if before_s is None else tuple((time_s - before_s) * pan for pan in self.pan_px_s)
            yield self.image(time_s), time_s, shift
            before_s = time_s


def at_rate(fps: float, seconds: float, start_s: float = 0.0) -> list[float]:
    """Return presentation times."""
    return [start_s + number / fps for number in range(round(fps * seconds) + 1)]


def history_of(scene: Scene, times_s: Sequence[float]) -> FrameHistory:
    """Return the history at the last of these times."""
    history = FrameHistory()
    for frame in scene.frames(times_s):
        history.add(*frame)
    return history


def watched(
    scene: Scene, times_s: Sequence[float], motion: MotionCandidates | None = None
) -> list[tuple[float, list[Candidate]]]:
    """Return each frame's time and motion candidates."""
    history, motion = FrameHistory(), motion or MotionCandidates(16)
    found = []
    for pixels, pts_s, shift_px in scene.frames(times_s):
        history.add(pixels, pts_s, shift_px)
        found.append((pts_s, motion.update(history)))
    return found


def rank(candidates: Sequence[Candidate], place: Point, within_px: float = 3.0) -> int | None:
    """Return at which place of the list, best first, a target's candidate is; None: it has none."""
    near = (max(abs(one.x_px - place[0]), abs(one.y_px - place[1])) <= within_px for one in candidates)
    return next((number for number, is_near in enumerate(near) if is_near), None)
