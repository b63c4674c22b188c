"""The loss: where objects are, and what they are called, each learned by itself; with the auxiliary heads.

In: logits (N, C, H, W) and label maps (N, H, W) uint8: 0 background, 1 + class index, above C a decoy (nothing, but
worth learning).  Out: scalars.

Where: the object map is the largest logit of a pixel, as in use; per-image Dice plus a focal-weighted cross-entropy, in
which labelled pixels of any kind weigh 3, so that what resembles a target counts.  What: the cross-entropy of the
softmax over the classes, on objects alone, so that a class that is rare among all pixels is not learned as silence.
(One Dice a class, tried first, did that: of three distractors two never became the largest class of any object.)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

DICE_SMOOTHING_PX = 8.0  # plain Dice is undefined on empty images
AREA_OFFSET_PX = 200.0  # added to the target's area, by which the cross-entropy is divided
LABELLED_WEIGHT = 3.0
NAME_OFFSET_PX = 10.0  # an object of so many pixels counts half: the smallest show little of what they are
NAME_WEIGHT = 0.5
AUXILIARY_WEIGHT = 0.4  # shared by the auxiliary heads


@dataclass(frozen=True)
class Loss:
    """`total` is differentiable, the parts are for the log."""

    total: Tensor
    dice: Tensor
    focal: Tensor
    names: Tensor
    auxiliary: Tensor


def segmentation_loss(
    logits: Tensor, auxiliary: list[Tensor], labels: Tensor, class_weights: Sequence[float] = ()
) -> Loss:
    """The weighted sum over the output and the auxiliary heads; `class_weights` (default: all 1) are of the names."""
    weights = torch.tensor(class_weights or [1.0] * logits.shape[1], device=labels.device)
    dice, focal, names = _parts(logits, labels, weights)
    aside = torch.zeros((), device=labels.device)
    for item in auxiliary:
        d, f, n = _parts(item, labels, weights)
        aside = aside + (d + f + NAME_WEIGHT * n) / len(auxiliary)
    total = dice + focal + NAME_WEIGHT * names + AUXILIARY_WEIGHT * aside
    return Loss(total, dice.detach(), focal.detach(), names.detach(), aside.detach())


def _parts(logits: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    logits = logits.float()
    dice, focal = _where(logits.amax(dim=1), labels, logits.shape[1])
    return dice, focal, _what(logits, labels, weights)


def _where(objects: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Means over images.  Focal: cross-entropy weighted by the squared error (Lin et al., 2017, arXiv 1708.02002,
    gamma 2)."""
    target = ((labels > 0) & (labels <= classes)).float()
    weight = 1.0 + (LABELLED_WEIGHT - 1.0) * (labels > 0).float()
    probability = torch.sigmoid(objects)
    target_px = target.sum(dim=(1, 2))
    overlap = (probability * target).sum(dim=(1, 2))
    areas = probability.sum(dim=(1, 2)) + target_px
    dice = 1 - (2 * overlap + DICE_SMOOTHING_PX) / (areas + DICE_SMOOTHING_PX)
    entropy = F.binary_cross_entropy_with_logits(objects, target, weight, reduction="none")
    focal = ((probability - target).square() * entropy).sum(dim=(1, 2)) / (target_px + AREA_OFFSET_PX)
    return dice.mean(), focal.mean()


def _what(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Mean over images of the objects' cross-entropy, each class of an image by its area."""
    classes = logits.shape[1]
    if classes == 1:
        return torch.zeros((), device=logits.device)
    present = torch.stack([labels == index + 1 for index in range(classes)], dim=1).float()
    entropy = -F.log_softmax(logits, dim=1)
    area_px = present.sum(dim=(2, 3))
    of_class = (present * entropy).sum(dim=(2, 3)) / (area_px + NAME_OFFSET_PX)
    return (of_class * weights).sum() / len(logits)
