"""The range ladder: clips as a camera of fewer pixels would record them, so that drones appear farther away.

In: a clip or a frame's pixels, and a scale below 1.  Out: the same, shrunk by area averaging.  Averaging also removes
sensor noise, so noise is added until the frame has as much as before.  Pure.
"""

import math
import zlib
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from training.datasets import Clip

SCALES = (0.75, 0.5, 0.35, 0.25)
BLOCK_PX = 8  # noise is measured in blocks of this size
LAPLACIAN = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)  # of norm 6; blind to planes and edges


def shrunk_clip(clip: Clip, scale: float) -> Clip:
    """Return the clip with the size and labels of its shrunk frames."""
    width_px, height_px = shrunk_size(clip.width_px, clip.height_px, scale)
    factors = np.array([width_px / clip.width_px, height_px / clip.height_px] * 2)
    frames = tuple(
        tuple(replace(item, xyxy=tuple((np.array(item.xyxy) * factors).tolist())) for item in objects)
        for objects in clip.frames
    )
    return replace(clip, width_px=width_px, height_px=height_px, frames=frames)


def shrunk_size(width_px: int, height_px: int, scale: float) -> tuple[int, int]:
    """Return width and height of a shrunk frame."""
    return max(1, round(width_px * scale)), max(1, round(height_px * scale))


class Shrinking:
    """Shrinks a clip's frames, one after another; the noise is the same in every run."""

    def __init__(self, clip_name: str, scale: float) -> None:
        self._scale = scale
        self._random = np.random.default_rng(zlib.crc32(f"{clip_name} {scale:g}".encode()))

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a frame, uint8 HxW or HxWx3, shrunk and as noisy as before."""
        size = shrunk_size(pixels.shape[1], pixels.shape[0], self._scale)
        shrunk = np.asarray(cv2.resize(pixels.astype(np.float32), size, interpolation=cv2.INTER_AREA))
        added = math.sqrt(max(0.0, noise_level(pixels) ** 2 - noise_level(shrunk) ** 2))
        noise = self._random.normal(0, added, shrunk.shape[:2]).astype(np.float32)
        noisy = shrunk + (noise if shrunk.ndim == 2 else noise[..., None])
        return np.asarray(np.clip(np.rint(noisy), 0, 255), np.uint8)


def noise_level(pixels: NDArray[np.integer | np.floating]) -> float:
    """Return the standard deviation of the brightness noise of a frame, HxW or HxWx3.

    Immerkaer, 1996, doi 10.1006/cviu.1996.0060; the median over blocks, most of which have no texture.
    """
    grey = pixels.astype(np.float32)
    grey = grey.mean(axis=2) if grey.ndim == 3 else grey
    response = np.abs(cv2.filter2D(grey, -1, LAPLACIAN))[1:-1, 1:-1]
    blocks = max(1, response.shape[1] // BLOCK_PX), max(1, response.shape[0] // BLOCK_PX)
    mean = np.median(cv2.resize(response, blocks, interpolation=cv2.INTER_AREA))
    return float(mean) * math.sqrt(math.pi / 2) / 6
