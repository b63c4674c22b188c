"""Fast evaluation during training, on a fixed subset of whole frames.

In: a network in evaluation mode and cached frames.  Out: recall on drones (a component of the object map whose centre
lies in the box enlarged by half; of class uav, and of any class), and the share of frames without a drone that have a
component of class uav.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from model.metadata import Preprocessing
from model.preprocess import prepare
from training.cache import CachedFrames
from training.datasets import LABEL_OF, LabelledRecording
from training.masks import Box, Image
from training.optimisation import autocast

THRESHOLD = 0.5
MULTIPLE = 128  # of the network's input
UAV = 0


@dataclass
class QuickEval:
    """Counts of a quick evaluation."""

    drones: int = 0
    found: int = 0  # as any class
    recognised: int = 0  # as uav
    distractor_frames: int = 0
    alarmed_frames: int = 0

    @property
    def values(self) -> list[float]:
        """Recall as any class, recall as uav, share of distractor frames with a uav."""
        drones, others = max(1, self.drones), max(1, self.distractor_frames)
        return [self.found / drones, self.recognised / drones, self.alarmed_frames / others]


def quick_eval_frames(
    recordings: Sequence[LabelledRecording], drone_frames: int, other_frames: int
) -> dict[str, list[int]]:
    """Return frame numbers by recording, spread evenly over the frames that show its object."""
    chosen = {}
    for recording in recordings:
        labelled = range(max(len(recording) - 2, min(1, len(recording))))  # a video may be shorter than its labels
        shown = [number for number in labelled if recording.may_show(number, recording.clip_class)]
        count = drone_frames if recording.clip_class == "drone" else other_frames
        spread = [shown[(2 * k + 1) * len(shown) // (2 * count)] for k in range(count)] if shown else []
        chosen[recording.name] = spread
    return chosen


@torch.no_grad()
def quick_eval(network: nn.Module, frames: CachedFrames, preprocessing: Preprocessing, precision: str) -> QuickEval:
    """Return the detection counts of a network on cached frames."""
    result = QuickEval()
    for clip in frames.clips:
        for frame in clip.frames:
            image, _ = frames.read(frame)
            prepared, span_px = prepare(image, clip.sensor, preprocessing)
            components = find_components(probabilities(network, prepared, precision))
            labelled = zip(frame.boxes, frame.labels, strict=True)
            boxes = [enlarged_box(box, 0.5, span_px) for box, label in labelled if label == LABEL_OF["drone"]]
            for x0, y0, x1, y1 in boxes:
                inside = [best for x, y, best in components if x0 <= x <= x1 and y0 <= y <= y1]
                result.drones += 1
                result.found += bool(inside)
                result.recognised += UAV in inside
            if not boxes:
                result.distractor_frames += 1
                result.alarmed_frames += any(best == UAV for _, _, best in components)
    return result


def probabilities(network: nn.Module, prepared: Image, precision: str) -> npt.NDArray[np.float32]:
    """Return the class probabilities (C, h, w) of a whole prepared frame, padded by reflection for the network."""
    height, width = prepared.shape[:2]
    padded = cv2.copyMakeBorder(prepared, 0, -height % MULTIPLE, 0, -width % MULTIPLE, cv2.BORDER_REFLECT_101)
    device = next(network.parameters()).device
    x = torch.from_numpy(padded).to(device).permute(2, 0, 1)[None].float() / 255
    with autocast(device, precision):
        logits = network(x.contiguous(memory_format=torch.channels_last))
    return np.asarray(torch.sigmoid(logits[0, :, :height, :width].float()).cpu().numpy())


def find_components(maps: npt.NDArray[np.float32]) -> list[tuple[float, float, int]]:
    """Return centre x, centre y and best class of each component of the object map."""
    objects = maps.max(axis=0) > THRESHOLD
    count, components, _, centres = cv2.connectedComponentsWithStats(objects.astype(np.uint8), connectivity=8)
    return [
        (float(centres[k][0]), float(centres[k][1]), int(maps[:, components == k].sum(axis=1).argmax()))
        for k in range(1, count)
    ]


def enlarged_box(box: Box, share: float, span_px: tuple[float, float] = (1.0, 1.0)) -> Box:
    """Return a box with sides longer by `share`, in pixels of an image each of which spans `span_px` frame pixels."""
    x0, y0, x1, y1 = (value / span for value, span in zip(box, span_px * 2, strict=True))
    across, down = (x1 - x0) * share / 2, (y1 - y0) * share / 2
    return x0 - across, y0 - down, x1 + across, y1 + down
