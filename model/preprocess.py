"""Preprocess a frame into the network's input, as the checkpoint was trained.

In: a uint8 frame, HxWx3 (RGB) or HxW.  Out: a uint8 image hxwx3, of three equal planes if colour is discarded, and its
scale in frame pixels per image pixel, with which detections are mapped back.
"""

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from model.metadata import Preprocessing


def prepare(
    pixels: NDArray[np.uint8], band: str, preprocessing: Preprocessing, scale: float | None = None
) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    """Return the network's input image and its (x, y) frame pixels per image pixel.

    `scale` overrides the checkpoint's factor for the band.
    """
    if preprocessing.grey and pixels.ndim == 3:
        pixels = luma(pixels)  # before scaling, to scale one plane instead of three
    height, width = pixels.shape[:2]
    if preprocessing.mode == "stretch":
        size = preprocessing.size
        return _stretch(in_colour(pixels), size), (width / size, height / size)
    factor = scale or preprocessing.scale[band]
    if factor == 1.0:
        return in_colour(pixels), (1.0, 1.0)
    new_width, new_height = max(1, round(width * factor)), max(1, round(height * factor))
    # Area averaging preserves the contrast of a target of few pixels; at one half it is the mean of 2x2.
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    scaled = cv2.resize(pixels, (new_width, new_height), interpolation=method)
    return in_colour(scaled.astype(np.uint8, copy=False)), (width / new_width, height / new_height)


def luma(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the luma (H, W) of an RGB image (H, W, 3), by ITU-R BT.601."""
    return cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY).astype(np.uint8, copy=False)


def in_colour(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a grey image (H, W) as three equal planes (H, W, 3), an RGB image unchanged."""
    if pixels.ndim == 2:
        return cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_GRAY2RGB).astype(np.uint8, copy=False)
    return np.ascontiguousarray(pixels)


def _stretch(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize to a square with antialiased bilinear interpolation, as the original does."""
    tensor = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None]
    stretched = F.interpolate(tensor, size=(size, size), mode="bilinear", align_corners=False, antialias=True)
    return np.ascontiguousarray(stretched[0].permute(1, 2, 0).numpy())
