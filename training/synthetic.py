"""Synthetic distractors: clouds, cloud fragments, glowing lamps and hot pixels.

Clouds mistaken for drones are the known failure on unseen footage.  In: a crop and its label map.  Out: the same with
distractors added where nothing is labelled; their pixels become DECOY, a negative for every class.
"""

import cv2
import numpy as np
import numpy.typing as npt

from training.masks import Image

Random = np.random.Generator
Floats = npt.NDArray[np.float32]

DECOY = 5
CLEARANCE_PX = 9  # decoys stay this far from labelled objects


def add_decoys(rng: Random, image: Image, labels: Image, is_infrared: bool) -> tuple[Image, Image]:
    """Return image and labels with random distractors; clouds cover everything, the rest avoids labelled pixels."""
    canvas = image.astype(np.float32)
    decoys = np.zeros(labels.shape, np.float32)
    near = cv2.dilate((labels > 0).astype(np.uint8), np.ones((CLEARANCE_PX, CLEARANCE_PX), np.uint8))
    free = np.asarray(1 - cv2.GaussianBlur(near.astype(np.float32), (0, 0), 2), np.float32)
    tint = (np.ones(3) if is_infrared else rng.uniform(0.8, 1.15, 3)).astype(np.float32)
    kind = rng.random()
    if kind < 0.45:
        canvas += _clouds(rng, labels.shape)[..., None] * tint
    if kind > 0.3:
        for _ in range(int(rng.integers(1, 9))):
            _add(canvas, decoys, free, *_fragment(rng, labels.shape), tint)
    if rng.random() < 0.3:
        for _ in range(int(rng.integers(1, 5))):
            _add(canvas, decoys, free, *_lamp(rng, labels.shape), tint)
    if rng.random() < 0.25:
        _hot_pixels(rng, canvas, free)
    labels = np.where((decoys > 12) & (labels == 0), np.uint8(DECOY), labels)
    return np.clip(canvas, 0, 255).astype(np.uint8), labels


def fractal_noise(rng: Random, shape: tuple[int, ...], roughness: float) -> Floats:
    """Return a sum of octaves, each half as coarse and `roughness` times as strong; mean 0, deviation 1."""
    height, width = shape
    total = np.zeros(shape, np.float32)
    strength, cells = 1.0, 2
    while cells < max(shape):
        coarse = rng.standard_normal((cells + 1, cells + 1), dtype=np.float32)
        total += strength * np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))
        strength, cells = strength * roughness, cells * 2
    return np.asarray((total - total.mean()) / (total.std() + 1e-6), np.float32)


def _clouds(rng: Random, shape: tuple[int, ...]) -> Floats:
    field = fractal_noise(rng, shape, rng.uniform(0.35, 0.65))
    edge, sharpness = rng.uniform(-1, 1.2), rng.uniform(1.5, 8)
    return np.asarray(rng.choice([-1, 1, 1]) * rng.uniform(10, 80) / (1 + np.exp(-sharpness * (field - edge))))


def _fragment(rng: Random, shape: tuple[int, ...]) -> tuple[Floats, int, int]:
    """Return a ragged, soft cloud fragment, 5 to 70 px long, and its top-left corner."""
    long_px = float(np.exp(rng.uniform(np.log(5), np.log(70))))
    side = int(long_px * 1.6) + 3
    rows, columns = np.mgrid[:side, :side].astype(np.float32) - (side - 1) / 2
    angle, flat = rng.uniform(-0.6, 0.6), rng.uniform(1.0, 3.5)
    along = columns * np.cos(angle) + rows * np.sin(angle)
    across = (rows * np.cos(angle) - columns * np.sin(angle)) * flat
    bump = 1 - (along**2 + across**2) / (long_px / 2) ** 2
    ragged = bump + rng.uniform(0.15, 0.7) * fractal_noise(rng, (side, side), rng.uniform(0.4, 0.75)) * (bump > -0.8)
    soft = 1 / (1 + np.exp(-rng.uniform(2.0, 7.0) * (ragged - 0.35)))
    soft *= np.clip(1.6 + bump, 0, 1)
    soft -= float(soft.min())
    strength = rng.choice([-1, 1, 1, 1]) * np.exp(rng.uniform(np.log(10), np.log(120)))
    top, left = int(rng.integers(-side // 2, shape[0] - side // 2)), int(rng.integers(-side // 2, shape[1] - side // 2))
    return np.asarray(strength * soft, np.float32), top, left


def _lamp(rng: Random, shape: tuple[int, ...]) -> tuple[Floats, int, int]:
    """Return a round saturated light with a halo, and its top-left corner."""
    sigma = float(np.exp(rng.uniform(np.log(1.5), np.log(9))))
    side = int(sigma * 12) | 1
    rows, columns = np.mgrid[:side, :side].astype(np.float32) - (side - 1) / 2
    squared = (rows**2 + columns**2) / sigma**2
    halo = rng.uniform(0.1, 0.35) * np.exp(-squared / 8) + np.exp(-squared / 2)
    top, left = int(rng.integers(-side // 2, shape[0] - side // 2)), int(rng.integers(-side // 2, shape[1] - side // 2))
    return np.asarray(rng.uniform(60, 300) * halo, np.float32), top, left


def _add(canvas: Floats, decoys: Floats, free: Floats, blob: Floats, top: int, left: int, tint: Floats) -> None:
    """Add a blob to the canvas in place, clipped to it, faded out near labelled objects."""
    inside_rows = slice(max(0, -top), min(blob.shape[0], canvas.shape[0] - top))
    inside_columns = slice(max(0, -left), min(blob.shape[1], canvas.shape[1] - left))
    blob = blob[inside_rows, inside_columns]
    top, left = max(0, top), max(0, left)
    area = slice(top, top + blob.shape[0]), slice(left, left + blob.shape[1])
    if not blob.size or free[area].min() < 0.5:  # a truncated blob would look artificial
        return
    canvas[area] += blob[..., None] * tint
    decoys[area] = np.maximum(decoys[area], np.where(np.abs(blob) > np.abs(blob).max() / 2, np.abs(blob), 0))


def _hot_pixels(rng: Random, canvas: Floats, free: Floats) -> None:
    for _ in range(int(rng.integers(1, 16))):
        row, column = int(rng.integers(canvas.shape[0] - 1)), int(rng.integers(canvas.shape[1] - 1))
        if free[row, column] > 0.9:
            canvas[row, column : column + int(rng.integers(1, 3))] += rng.choice([-1, 1]) * rng.uniform(40, 255)
