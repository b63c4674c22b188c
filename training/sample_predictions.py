"""Sample predictions during training: the same frames at every check, as one image for inspection.

In: a network in evaluation mode and cached frames.  Out: a row per frame, cropped around its targets: the frame,
its labels, and the probability of any object from black (0) to white (1).
"""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from model.metadata import Preprocessing
from model.preprocess import prepare
from training.cache import CachedClip, CachedFrame, CachedFrames
from training.evaluation.qualitative import window_around
from training.masks import Image
from training.quick_eval import probabilities

ROWS = 6
TILE_PX, CAPTION_PX = 192, 18
WHITE = (255, 255, 255)

FrameSource = tuple[CachedFrames, CachedClip, CachedFrame]


@torch.no_grad()
def write_predictions(
    path: Path, network: nn.Module, sets: Iterable[CachedFrames], preprocessing: Preprocessing, precision: str
) -> None:
    """Write the image; write nothing where there are no frames."""
    rows = [_row(network, *shown, preprocessing, precision) for shown in spread_frames(sets)]
    if rows:
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.ascontiguousarray(np.vstack(rows)[..., ::-1]))


def spread_frames(sets: Iterable[CachedFrames]) -> list[FrameSource]:
    """Return ROWS frames with labels, evenly spread; frames without labels where there are no others."""
    every = [(frames, clip, frame) for frames in sets for clip in frames.clips for frame in clip.frames]
    every = [shown for shown in every if shown[2].labels] or every
    count = min(ROWS, len(every))
    return [every[(2 * place + 1) * len(every) // (2 * count)] for place in range(count)]


def _row(
    network: nn.Module,
    frames: CachedFrames,
    clip: CachedClip,
    frame: CachedFrame,
    preprocessing: Preprocessing,
    precision: str,
) -> Image:
    image, labels = frames.read(frame)
    prepared, _ = prepare(image, clip.sensor, preprocessing)
    likely = probabilities(network, prepared, precision).max(axis=0)
    likely = np.asarray(cv2.resize(likely, labels.shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32)
    window = window_around(labels > 0)
    tiles = [image[window], _grey((labels > 0)[window]), _grey(likely[window])]
    caption = np.zeros((CAPTION_PX, len(tiles) * TILE_PX, 3), np.uint8)
    text = f"{clip.name} {frame.number}"
    cv2.putText(caption, text[-80:], (3, CAPTION_PX - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.38, WHITE, 1, cv2.LINE_AA)
    return np.vstack([caption, np.hstack([_tile(tile) for tile in tiles])])


def _grey(levels: npt.NDArray[np.bool_] | npt.NDArray[np.float32]) -> Image:
    """Return levels in 0..1 as RGB."""
    return np.repeat(np.rint(levels * np.float32(255)).astype(np.uint8)[..., None], 3, axis=2)


def _tile(image: Image) -> Image:
    """Return an image fitted into a square tile, with its proportions."""
    height, width = image.shape[:2]
    scale = TILE_PX / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    tile = np.zeros((TILE_PX, TILE_PX, 3), np.uint8)
    tile[: size[1], : size[0]] = cv2.resize(image, size, interpolation=cv2.INTER_NEAREST)
    return tile
