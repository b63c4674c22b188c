"""Validation loss and IoU on whole, stretched frames that are not trained on.

In: a network in evaluation mode and cached frames.  Out: the loss, and the IoU at a threshold of 0.5, as means over
images; the IoU of an image and class is (intersection + 1e-6) / (union + 1e-6), as in the original, so that an empty
mask on an empty image counts as correct.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import torch
from torch import Tensor, nn

from training.cache import CachedFrame, CachedFrames
from training.config import TrainingConfig
from training.losses import segmentation_loss
from training.optimisation import autocast
from training.samples import TrainingSample, all_frames, network_input, stacked, stretched

EPSILON = 1e-6


@torch.no_grad()
def validate(
    network: nn.Module, sets: Iterable[CachedFrames], size_px: int, config: TrainingConfig
) -> dict[str, float]:
    """Return {"val_loss": ..., "val_iou": ...} over the frames of all sets."""
    device = next(network.parameters()).device
    losses: list[Tensor] = []
    ious: list[Tensor] = []
    shares: list[int] = []
    with ThreadPoolExecutor(max(1, config.workers)) as pool:
        for frames in sets:

            def read(frame: CachedFrame, frames: CachedFrames = frames) -> TrainingSample:
                return stretched(*frames.read(frame), size_px)

            items = all_frames(frames)
            for start in range(0, len(items), config.batch):
                made = stacked(list(pool.map(read, items[start : start + config.batch])))
                images, labels = (torch.from_numpy(array).to(device) for array in made)
                with autocast(device, config.precision):
                    logits = cast(Tensor, network(network_input(images)))
                losses.append(segmentation_loss(config.loss, logits, [], labels).total)
                ious.append(iou(logits > 0, labels))
                shares.append(len(images))
    weights = torch.tensor(shares, dtype=torch.float64)
    loss_mean, iou_mean = (
        float((torch.stack(values).double().cpu() * weights).sum() / weights.sum()) for values in (losses, ious)
    )
    return {"val_loss": loss_mean, "val_iou": iou_mean}


def iou(predicted: Tensor, labels: Tensor) -> Tensor:
    """Return the mean IoU over images and classes of masks (N, C, H, W) and label maps (N, H, W)."""
    classes = torch.arange(1, predicted.shape[1] + 1, device=labels.device)
    target = labels[:, None] == classes[None, :, None, None]
    shared = (predicted & target).sum(dim=(2, 3)).float()
    either = (predicted | target).sum(dim=(2, 3)).float()
    return ((shared + EPSILON) / (either + EPSILON)).mean()
