"""Sample images of an evaluation, the same for every network: for the qualitative grid of a comparison.

In: cached frames; then an image, its true and its predicted mask.  Out: square crops around the target, so that small
ones are visible, in a folder as `<name>.input.png`, `<name>.truth.png` and `<name>.mask.png`.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from training.cache import CachedFrames
from training.evaluation.mask_metrics import UAV_LABEL
from training.masks import Image, Mask

SAMPLES = 4
LEAST_SIDE_PX = 96
SIDE_PER_TARGET = 4.0


@dataclass(frozen=True)
class QualitativeSample:
    """A crop of an image with its true and predicted masks."""

    name: str
    image: Image  # (h, w, 3) RGB
    truth: Mask  # (h, w)
    mask: Mask


def chosen_frames(frames: CachedFrames) -> set[tuple[str, int]]:
    """Return recording and number of SAMPLES frames with a uav, evenly spread over the data."""
    shown = [(clip.name, frame.number) for clip in frames.clips for frame in clip.frames if UAV_LABEL in frame.labels]
    number = min(SAMPLES, len(shown))
    return {shown[(2 * k + 1) * len(shown) // (2 * number)] for k in range(number)}


def crop(name: str, image: Image, truth: Mask, mask: Mask) -> QualitativeSample:
    """Return the crop around the target."""
    window = window_around(truth)
    return QualitativeSample(name, image[window], truth[window], mask[window])


def window_around(truth: Mask) -> tuple[slice, slice]:
    """Return rows and columns around the target: 4 times its length, at least 96 pixels, within the image.

    Return all rows and columns of an image without a target.
    """
    if not truth.any():
        return slice(None), slice(None)
    x, y, width, height = cv2.boundingRect(truth.astype(np.uint8))
    side = round(max(LEAST_SIDE_PX, SIDE_PER_TARGET * max(width, height)))
    top, left = (
        max(0, min(middle - side // 2, length - side))
        for middle, length in ((y + height // 2, truth.shape[0]), (x + width // 2, truth.shape[1]))
    )
    return slice(top, top + side), slice(left, left + side)


def write_samples(folder: Path, samples: list[QualitativeSample]) -> None:
    """Write the samples' images to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for sample in samples:
        stem = sample.name.replace("/", "-")
        for part, pixels in (
            ("input", sample.image[..., ::-1]),
            ("truth", sample.truth.astype(np.uint8) * 255),
            ("mask", sample.mask.astype(np.uint8) * 255),
        ):
            cv2.imwrite(str(folder / f"{stem}.{part}.png"), np.ascontiguousarray(pixels))


def read_samples(folder: Path) -> list[QualitativeSample]:
    """Return the samples of a folder, sorted by name, without incomplete ones."""
    samples = []
    for path in sorted(folder.glob("*.input.png")):
        name = path.name.removesuffix(".input.png")
        image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
        truth, mask = (
            cv2.imread(str(folder / f"{name}.{part}.png"), cv2.IMREAD_GRAYSCALE) for part in ("truth", "mask")
        )
        if image is not None and truth is not None and mask is not None:
            samples.append(
                QualitativeSample(name, np.asarray(image, np.uint8), np.asarray(truth > 0), np.asarray(mask > 0))
            )
    return samples
