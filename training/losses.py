"""The loss: per-image per-class Dice plus a focal-weighted cross-entropy, with the auxiliary heads.

In: logits (N, C, H, W) and label maps (N, H, W) uint8: 0 background, 1 + class index, above C a decoy (target 0 in
every class).  Out: scalars.  Labelled pixels of any kind weigh 3, so that what resembles a target counts.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

DICE_SMOOTHING_PX = 8.0  # plain Dice is undefined on empty images
AREA_OFFSET_PX = 200.0  # added to the target's area, by which the cross-entropy is divided
LABELLED_WEIGHT = 3.0
AUXILIARY_WEIGHT = 0.4  # shared by the auxiliary heads


@dataclass(frozen=True)
class Loss:
    """`total` is differentiable, the parts are for the log."""

    total: Tensor
    dice: Tensor
    focal: Tensor
    auxiliary: Tensor


def segmentation_loss(logits: Tensor, auxiliary: list[Tensor], labels: Tensor) -> Loss:
    """The weighted sum over the output and the auxiliary heads."""
    classes = torch.arange(1, logits.shape[1] + 1, device=labels.device)
    target = (labels[:, None] == classes[None, :, None, None]).float()
    weight = 1.0 + (LABELLED_WEIGHT - 1.0) * (labels[:, None] > 0).float()
    dice, focal = _dice_and_focal(logits, target, weight)
    aside = torch.zeros(())
    for item in auxiliary:
        aside = aside + sum(_dice_and_focal(item, target, weight)) / len(auxiliary)
    total = dice + focal + AUXILIARY_WEIGHT * aside
    return Loss(total, dice.detach(), focal.detach(), aside.detach())


def _dice_and_focal(logits: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Means over images and classes.  Focal: cross-entropy weighted by the squared error (Lin et al., 2017,
    arXiv 1708.02002, gamma 2)."""
    logits = logits.float()
    probability = torch.sigmoid(logits)
    target_px = target.sum(dim=(2, 3))
    overlap = (probability * target).sum(dim=(2, 3))
    areas = probability.sum(dim=(2, 3)) + target_px
    dice = 1 - (2 * overlap + DICE_SMOOTHING_PX) / (areas + DICE_SMOOTHING_PX)
    entropy = F.binary_cross_entropy_with_logits(logits, target, weight, reduction="none")
    focal = ((probability - target).square() * entropy).sum(dim=(2, 3)) / (target_px + AREA_OFFSET_PX)
    return dice.mean(), focal.mean()
