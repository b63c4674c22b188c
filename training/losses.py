"""Segmentation losses, including those of auxiliary heads (deep supervision).

In: logits (N, C, H, W) and label maps (N, H, W) uint8: 0 background, 1 + class index, above C a decoy (target 0 in
every class).  Out: scalars.  All are means over images, so that a batch may be split over processes.

    dice        the paper's: 1 - 2|P.T| / (|P| + |T|), smoothed, as it is undefined where both are empty
    jaccard     1 - |P.T| / |P or T|, smoothed likewise
    bce         binary cross-entropy, the mean over pixels
    compound    bce + dice + focal, alpha 0.25, gamma 2, as the original's CompoundLoss
    field       ours, in two parts.  Objectness: the largest logit of a pixel, as in inference, by Dice and a focal
                cross-entropy in which labelled pixels of any kind weigh 3, so that hard negatives count.
                Classification: softmax cross-entropy over the classes on object pixels only, so that a class that is
                rare among all pixels is not suppressed.  (One Dice per class, tried first, suppressed two of three
                distractor classes entirely.)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

SMOOTHING_PX = 1.0
FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0
FIELD_SMOOTHING_PX = 8.0
AREA_OFFSET_PX = 200.0  # added to the target's area, by which the field loss divides its cross-entropy
LABELLED_WEIGHT = 3.0
CLASS_OFFSET_PX = 10.0  # an object of so many pixels counts half: the smallest show little of their class
CLASS_WEIGHT = 1.5
AUXILIARY_WEIGHT = 0.4  # of each auxiliary head, as in the original; in the field loss they share it

Parts = dict[str, Tensor]


@dataclass(frozen=True)
class LossValue:
    """A loss and its parts; `total` is differentiable, the parts are for the log."""

    total: Tensor
    parts: Parts


def segmentation_loss(
    kind: str, logits: Tensor, auxiliary: Sequence[Tensor], labels: Tensor, class_weights: Sequence[float] = ()
) -> LossValue:
    """Return the loss `kind` of the output plus AUXILIARY_WEIGHT times that of the auxiliary heads.

    `class_weights` (default: all 1) weigh the classes in the field loss.
    """
    parts_of = LOSSES[kind]
    if kind == "field" and class_weights:
        parts_of = partial(_field, class_weights=class_weights)
    classes = torch.arange(1, logits.shape[1] + 1, device=labels.device)
    target = (labels[:, None] == classes[None, :, None, None]).float()
    parts = parts_of(logits.float(), target, labels)
    total = sum(parts.values(), torch.zeros((), device=logits.device))
    if auxiliary:
        heads = len(auxiliary) if kind == "field" else 1
        auxiliary_loss = torch.zeros((), device=logits.device)
        for item in auxiliary:
            auxiliary_loss = auxiliary_loss + sum(parts_of(item.float(), target, labels).values()) / heads
        total = total + AUXILIARY_WEIGHT * auxiliary_loss
        parts["auxiliary"] = auxiliary_loss
    return LossValue(total, {name: part.detach() for name, part in parts.items()})


def part_names(kind: str, classes: int) -> list[str]:
    """Return the names of a loss's parts, the auxiliary heads included."""
    logits = torch.zeros(1, classes, 1, 1)
    return list(segmentation_loss(kind, logits, [logits], torch.zeros(1, 1, 1)).parts)


def overlap_loss(probability: Tensor, target: Tensor, smoothing_px: float) -> Tensor:
    """Return the smoothed Dice loss (N, C)."""
    overlap = (probability * target).sum(dim=(2, 3))
    areas = probability.sum(dim=(2, 3)) + target.sum(dim=(2, 3))
    return 1 - (2 * overlap + smoothing_px) / (areas + smoothing_px)


def _dice(logits: Tensor, target: Tensor, _labels: Tensor) -> Parts:
    return {"dice": overlap_loss(torch.sigmoid(logits), target, SMOOTHING_PX).mean()}


def _jaccard(logits: Tensor, target: Tensor, _labels: Tensor) -> Parts:
    probability = torch.sigmoid(logits)
    overlap = (probability * target).sum(dim=(2, 3))
    union = probability.sum(dim=(2, 3)) + target.sum(dim=(2, 3)) - overlap
    return {"jaccard": (1 - (overlap + SMOOTHING_PX) / (union + SMOOTHING_PX)).mean()}


def _bce(logits: Tensor, target: Tensor, _labels: Tensor) -> Parts:
    return {"bce": F.binary_cross_entropy_with_logits(logits, target)}


def _compound(logits: Tensor, target: Tensor, labels: Tensor) -> Parts:
    """Return bce, dice and focal (Lin et al., 2017, arXiv 1708.02002; as in the original alpha weighs all pixels)."""
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    focal = FOCAL_ALPHA * (1 - torch.exp(-entropy)) ** FOCAL_GAMMA * entropy
    return {"bce": entropy.mean(), **_dice(logits, target, labels), "focal": focal.mean()}


def _field(logits: Tensor, target: Tensor, labels: Tensor, class_weights: Sequence[float] = ()) -> Parts:
    dice, focal = _objectness(logits.amax(dim=1, keepdim=True), target.amax(dim=1, keepdim=True), labels)
    if logits.shape[1] == 1:
        return {"dice": dice, "focal": focal}
    weights = torch.tensor(class_weights or [1.0] * logits.shape[1], device=logits.device)
    return {"dice": dice, "focal": focal, "names": CLASS_WEIGHT * _classification(logits, target, weights)}


def _objectness(logits: Tensor, target: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return Dice, and cross-entropy weighted by the squared error (Lin et al., 2017, arXiv 1708.02002, gamma 2)."""
    probability = torch.sigmoid(logits)
    weight = 1.0 + (LABELLED_WEIGHT - 1.0) * (labels[:, None] > 0).float()
    entropy = F.binary_cross_entropy_with_logits(logits, target, weight, reduction="none")
    areas = target.sum(dim=(2, 3)) + AREA_OFFSET_PX
    focal = ((probability - target).square() * entropy).sum(dim=(2, 3)) / areas
    return overlap_loss(probability, target, FIELD_SMOOTHING_PX).mean(), focal.mean()


def _classification(logits: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Return the cross-entropy of object pixels, each class of an image normalised by its area."""
    entropy = -F.log_softmax(logits, dim=1)
    of_class = (target * entropy).sum(dim=(2, 3)) / (target.sum(dim=(2, 3)) + CLASS_OFFSET_PX)
    return (of_class * weights).sum(dim=1).mean()


LOSSES: dict[str, Callable[..., Parts]] = {
    "dice": _dice,
    "bce": _bce,
    "jaccard": _jaccard,
    "compound": _compound,
    "field": _field,
}
