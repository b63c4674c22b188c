"""Camera tampering: a view that was at rest is covered, or replaced by another one, at once and for good.  Pure.

In: small grey images in their order, with their times.  Out: since when the camera is tampered with, or None.

The view is a slow average of the images' detail (what a blur would remove), compared block by block.  A block is armed
once it has shown the same detail for long; plain sky, waves and all that moves never is.  Tampering is suspected when
the armed blocks together no longer correlate with the view, and confirmed when this lasts and the new image is at rest
or without detail.

Not confirmed are a camera that pans (consecutive images match when shifted), a view that moved by less than a quarter
of the image, passing objects (the other blocks stay, or the view returns), and fog, dusk and clouds (slow).  Gain,
exposure and the polarity of a thermal camera do not change the absolute correlation.  At low frame rates a pan looks
like a jump, and nothing is reported.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]  # (H, W)
PerBlock = NDArray[Any]  # (rows, columns) of blocks
Blocks = NDArray[np.bool_]  # the same, as a selection

BLOCK_PX = 8
MIN_DETAIL = 2.0  # rms grey levels; less may be noise that a video codec repeats
MIN_BLOCKS = 6
SAME = 0.6  # correlation of a block that shows the same as before
OTHER = 0.25  # mean correlation of the armed blocks in another view; of unrelated views it is about 0.1
BACK = 0.5  # mean correlation of a view that is back, or at rest
COVERED_DETAIL = 0.3  # of the detail that the armed blocks had: what is left is noise
SHIFTED, SHIFT_GAIN = 0.4, 0.05  # correlation of shifted images that show the same place, and more than unshifted
MAX_SHIFT = 0.25  # of the image's sides
PAN_FRAMES = 3  # a single jump may by chance fit the image before it when shifted


@dataclass(frozen=True)
class TamperingSettings:
    """Times in s of `TamperingMonitor`."""

    armed_s: float = 60.0  # longer than a tracking or patrolling camera usually rests
    abrupt_s: float = 1.0  # a change that takes longer is not tampering
    confirm_s: float = 4.0
    accept_s: float = 60.0  # another view at rest for so long becomes the camera's view
    average_s: float = 5.0
    max_gap_s: float = 0.25  # between images of which a pan can be recognised


class _View:
    """The average detail of a view, and for how long each block has shown the same."""

    def __init__(self, detail: Image, time_s: float) -> None:
        self.detail = detail
        shape = _block_means(detail).shape
        self._same_since_s, self._same_until_s = np.full(shape, time_s), np.full(shape, time_s)

    @property
    def detail_per_block(self) -> PerBlock:
        return np.sqrt(_block_means(self.detail * self.detail))

    def similarity(self, detail: Image, blocks: Blocks) -> float:
        """Return the absolute mean correlation of these blocks with an image."""
        return abs(float(self._correlation(detail)[blocks].mean()))

    def update(self, detail: Image, time_s: float, elapsed_s: float, settings: TamperingSettings) -> None:
        """Average an image in."""
        self._same_until_s[np.abs(self._correlation(detail)) >= SAME] = time_s
        self._same_since_s[time_s - self._same_until_s > settings.abrupt_s] = time_s
        self.detail = self.detail + min(1.0, elapsed_s / settings.average_s) * (detail - self.detail)

    def at_rest(self, duration_s: float) -> Blocks:
        """Return the blocks with detail that have shown the same for so long, up to a moment ago."""
        return np.asarray(
            (self._same_until_s - self._same_since_s >= duration_s) & (self.detail_per_block >= MIN_DETAIL)
        )

    def _correlation(self, detail: Image) -> PerBlock:
        energies = _block_means(detail * detail) * _block_means(self.detail * self.detail)
        return np.asarray(_block_means(detail * self.detail) / np.sqrt(np.maximum(energies, 1e-6)))


@dataclass
class _Suspicion:
    """An abrupt change of the view."""

    since_s: float
    before: _View
    armed: Blocks
    after: _View | None = None  # from the end of the change on
    pan_frames: int = 0
    confirmed: bool = False


class TamperingMonitor:
    """Monitors one connection to a camera."""

    def __init__(self, settings: TamperingSettings | None = None) -> None:
        self._settings = settings or TamperingSettings()
        self.reset()

    def reset(self) -> None:
        """Forget the view, as after dark images, with which nothing can be compared."""
        self._view: _View | None = None
        self._suspicion: _Suspicion | None = None
        self._previous: Image | None = None
        self._previous_s = 0.0

    def update(self, image: Image, time_s: float) -> float | None:
        """Judge an image about 80 pixels wide; return since when the camera is tampered with, or None."""
        detail = _detail(image)
        if self._previous is not None and self._previous.shape != detail.shape:
            self.reset()
        previous, elapsed_s = self._previous, time_s - self._previous_s
        self._previous, self._previous_s = detail, time_s
        if previous is None or self._view is None:
            self._view = _View(detail, time_s)
            return None
        if self._suspicion is None:
            self._suspicion = self._suspect(self._view, detail, time_s, elapsed_s)
        suspicion = self._suspicion
        if suspicion is None:
            return None
        if not suspicion.confirmed and self._is_harmless(suspicion, previous, detail):
            self._end(_View(detail, time_s))
        elif suspicion.before.similarity(detail, suspicion.armed) >= BACK:
            self._end(suspicion.before)
        elif time_s - suspicion.since_s >= self._settings.abrupt_s:
            self._examine(suspicion, detail, time_s, elapsed_s)
        return suspicion.since_s if self._suspicion and suspicion.confirmed else None

    def _suspect(self, view: _View, detail: Image, time_s: float, elapsed_s: float) -> _Suspicion | None:
        """Return a suspicion if the armed blocks show something else at once; otherwise learn the view."""
        armed = view.at_rest(self._settings.armed_s)
        if np.count_nonzero(armed) < MIN_BLOCKS or view.similarity(detail, armed) > OTHER:
            view.update(detail, time_s, elapsed_s, self._settings)
            return None
        if elapsed_s <= self._settings.max_gap_s:
            return _Suspicion(time_s, view, armed)
        self._view = _View(detail, time_s)
        return None

    def _is_harmless(self, suspicion: _Suspicion, previous: Image, detail: Image) -> bool:
        """Return whether the camera pans, or has moved by so little that its view overlaps the one before."""
        suspicion.pan_frames += _is_shifted(previous, detail)
        return suspicion.pan_frames >= PAN_FRAMES or _is_shifted(suspicion.before.detail, detail)

    def _examine(self, suspicion: _Suspicion, detail: Image, time_s: float, elapsed_s: float) -> None:
        """Confirm the suspicion or end it, and accept another view after a long time."""
        settings = self._settings
        if suspicion.after is None:
            suspicion.after = _View(detail, time_s)
            return
        after = suspicion.after
        after.update(detail, time_s, elapsed_s, settings)
        if not suspicion.confirmed and time_s - suspicion.since_s >= settings.abrupt_s + settings.confirm_s:
            suspicion.confirmed = _is_covered(suspicion, detail) or _is_at_rest(after, detail)
            if not suspicion.confirmed:
                self._end(after)
        if np.count_nonzero(after.at_rest(settings.accept_s)) >= MIN_BLOCKS:
            self._end(after)

    def _end(self, view: _View) -> None:
        self._view, self._suspicion = view, None


def _is_at_rest(view: _View, detail: Image) -> bool:
    blocks = view.detail_per_block >= MIN_DETAIL
    return bool(np.count_nonzero(blocks) >= MIN_BLOCKS and view.similarity(detail, blocks) >= BACK)


def _is_covered(suspicion: _Suspicion, detail: Image) -> bool:
    left = np.sqrt(_block_means(detail * detail))[suspicion.armed].mean()
    return bool(left <= COVERED_DETAIL * suspicion.before.detail_per_block[suspicion.armed].mean())


def _is_shifted(before: Image, after: Image) -> bool:
    """Return whether an image matches another, and better when shifted (by the cross-correlation theorem)."""
    energy = max(float(np.linalg.norm(before) * np.linalg.norm(after)), 1e-6)
    matches = np.abs(np.fft.irfft2(np.fft.rfft2(after) * np.fft.rfft2(before).conj(), before.shape)) / energy
    rows, columns = (round(MAX_SHIFT * side) for side in matches.shape)
    near = np.roll(matches, (rows, columns), axis=(0, 1))[: 2 * rows + 1, : 2 * columns + 1]
    return bool(near.max() >= max(SHIFTED, matches[0, 0] + SHIFT_GAIN))


def _detail(image: Image) -> Image:
    """Return the image less its average over 3 x 3 pixels, without its border."""
    rows = image[:-2] + image[1:-1] + image[2:]
    return np.asarray(image[1:-1, 1:-1] - (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 9)


def _block_means(values: Image) -> PerBlock:
    """Return the means of whole blocks, without what is left at the right and at the bottom."""
    rows, columns = (side // BLOCK_PX for side in values.shape)
    strips = values[: rows * BLOCK_PX, : columns * BLOCK_PX].reshape(rows, BLOCK_PX, -1).sum(axis=1)
    return np.asarray(strips.reshape(rows, columns, BLOCK_PX).sum(axis=2) / np.float32(BLOCK_PX**2))
