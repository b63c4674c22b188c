"""Distillation: a network learns the logits of a larger, trained one, its teacher, beside the labels.

In: the teacher's checkpoint, and both networks' logits (N, C, H, W) of the same samples.  Out: a loss, and checkpoints.
As the logits are those of the teacher, so are judge and thresholds, which the student's checkpoints take over.

Ba and Caruana, "Do Deep Nets Really Need to be Deep?", NeurIPS 2014, arXiv 1312.6184: logits are learned by regression.
"""

from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.checkpoint import load, save
from model.engine.engine import Engine
from model.metadata import Metadata
from pipeline.errors import ConfigError
from training.config import TrainingConfig
from training.losses import LossValue

PART = "distillation"  # of a loss
MAX_LOGIT = 8.0  # of the teacher's that are learned: beyond it their value is noise
OFFSET_PX = 10.0  # added to the area of an image's targets: one without any teaches little


class Teacher:
    """The trained network of a recipe's `distillation`.

    Raises CheckpointError for one that cannot be loaded, ConfigError for one of other classes or another input.
    """

    def __init__(self, config: TrainingConfig, device: torch.device) -> None:
        assert config.distillation is not None
        path = config.distillation.teacher
        self._loaded, self._weight = load(path), config.distillation.weight
        metadata = self._loaded.metadata
        for name, given, wanted in (
            ("classes", metadata.classes, config.classes),
            ("preprocessing", metadata.preprocessing, config.sampling.preprocessing),
        ):
            if given != wanted:
                raise ConfigError(f"distillation.teacher = {path!r}: its {name} are {given}; must be {wanted}")
        self._engine = Engine(self._loaded, str(device), threads=config.threads)

    def add_to(self, loss: LossValue, images: Tensor, logits: Tensor) -> LossValue:
        """Return a loss with the distance of a network's logits from the teacher's of the same images added."""
        distance = logit_distance(logits, self._engine.logits(images).to(logits.device))
        return LossValue(loss.total + self._weight * distance, {**loss.parts, PART: distance.detach()})

    def export(self, path: Path, network: nn.Module, metadata: Metadata) -> None:
        """Write a student's checkpoint, with the teacher's judge and thresholds."""
        own = self._loaded.metadata
        save(path, network, replace(metadata, judge=own.judge, thresholds=own.thresholds), self._loaded.judge)


def logit_distance(logits: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean distance of logits over the pixels in which either network sees a target.

    With a mean over all pixels, the background, in which a logit's value decides nothing, would outweigh small targets.
    """
    logits, wanted = logits.float(), wanted.float()
    weights = torch.sigmoid(torch.maximum(logits.detach(), wanted).amax(dim=1))  # (N, H, W)
    distances = F.smooth_l1_loss(logits, wanted.clamp(-MAX_LOGIT, MAX_LOGIT), reduction="none").mean(dim=1)
    return ((weights * distances).sum(dim=(1, 2)) / (weights.sum(dim=(1, 2)) + OFFSET_PX)).mean()
