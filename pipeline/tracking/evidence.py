"""What a track's detections say of it: target or clutter, which class, and how far that is from training.  Pure.

Each is averaged over the last seconds, so that the label of an approaching target is revised.  Suppression must be
earned: a distractor's class must be sure, and the detections like those that training knew.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from model.metadata import CLUTTER, Thresholds
from pipeline.types import UAV, UNKNOWN

LIMIT = 4.0  # log-odds of one frame: a single confident frame must not decide
INDEPENDENT_S = 0.15  # frames nearer to each other than this say the same
UNLIKE_TRAINING = "unlike training"
NOT_CALIBRATED = "camera not calibrated"


class Label(NamedTuple):
    """A track's label, and why it is unknown although its class seems to be a distractor's."""

    name: str
    reason: str | None = None


class EvidenceState(msgspec.Struct, frozen=True):
    """The sums of one track's evidence."""

    class_sums: list[float]
    class_weight: float
    target_sum: float
    target_weight: float
    novelty_sum: float
    novelty_weight: float
    observed_s: float


class Evidence:
    """The evidence of one track.

    Args:
        classes: of the detections.
        time_constant_s: of the exponential decay.
    """

    def __init__(self, classes: tuple[str, ...], time_constant_s: float) -> None:
        self._classes = classes
        self._time_constant_s = time_constant_s
        self._class_sums, self._class_weight = [0.0] * len(classes), 0.0
        self._target_sum = self._target_weight = 0.0
        self._novelty_sum = self._novelty_weight = 0.0
        self._motion = 0.0
        self._means: list[float] | None = None  # of what was added so far
        self._uav = classes.index(UAV) if UAV in classes else 0
        self._first_s = self._last_s = math.nan

    def add(self, pts_s: float, score_log_odds: float, classes: Sequence[float] | None, novelty: float) -> None:
        """Add a detection.

        Args:
            pts_s: its presentation time.
            score_log_odds: of a target, as `log_odds`.
            classes: as `class_log_odds`; None: not classified.
            novelty: 0: not judged.
        """
        self._decay(pts_s)
        self._target_sum += score_log_odds
        self._target_weight += 1
        if classes is not None:
            self._class_sums = [total + value for total, value in zip(self._class_sums, classes, strict=True)]
            self._class_weight += 1
        if novelty > 0:
            self._novelty_sum += novelty
            self._novelty_weight += 1

    def miss(self, pts_s: float, score_log_odds: float) -> None:
        """Add a frame without a detection, which is as much as one of the least score."""
        self._decay(pts_s)
        self._target_sum += score_log_odds
        self._target_weight += 1

    def state(self) -> EvidenceState:
        """Return the sums."""
        return EvidenceState(
            self._class_sums,
            self._class_weight,
            self._target_sum,
            self._target_weight,
            self._novelty_sum,
            self._novelty_weight,
            self.observed_s,
        )

    def inherit(self, state: EvidenceState, pts_s: float) -> None:
        """Continue from these sums, at this presentation time."""
        self._class_sums, self._class_weight = list(state.class_sums), state.class_weight
        self._target_sum, self._target_weight = state.target_sum, state.target_weight
        self._novelty_sum, self._novelty_weight = state.novelty_sum, state.novelty_weight
        self._first_s, self._last_s, self._means = pts_s - state.observed_s, pts_s, None

    @property
    def motion(self) -> float:
        """Log-odds of a uav by how it moves, added to those by its appearance."""
        return self._motion

    @motion.setter
    def motion(self, value: float) -> None:
        self._motion, self._means = value, None

    @property
    def target(self) -> float:
        """Mean log-odds of a target against clutter."""
        return self._target_sum / (self._target_weight or 1.0)

    @property
    def observed_s(self) -> float:
        """Time from the first detection to the last."""
        return self._last_s - self._first_s

    @property
    def total(self) -> float:
        """Log-odds of a target over all that was seen: the mean times the number of independent observations."""
        return self.target * self._observations

    @property
    def uav_total(self) -> float:
        """Log-odds of a uav against the best other class over all that was seen, likewise."""
        return self._class_means()[self._uav] * self._observations

    @property
    def _observations(self) -> float:
        return 1 + min(self.observed_s, self._time_constant_s) / INDEPENDENT_S

    @property
    def novelty(self) -> float:
        """Mean novelty; above 1: unlike training."""
        return self._novelty_sum / (self._novelty_weight or 1.0)

    def by_class(self) -> dict[str, float]:
        """Return each class's log-odds minus the best other class's, averaged; a uav's with those by its motion."""
        return dict(zip(self._classes, [round(mean, 4) for mean in self._class_means()], strict=True))

    def _class_means(self) -> list[float]:
        if self._means is None:
            weight = self._class_weight or 1.0
            self._means = [total / weight for total in self._class_sums]
            if self._class_weight and len(self._classes) > 1:
                self._means[self._uav] += self._motion
        return self._means

    def label(self, thresholds: Thresholds, *, may_suppress: bool, margin: float) -> Label:
        """Return the label.

        Args:
            thresholds: the operating point.
            may_suppress: whether the camera's distractors may be suppressed.
            margin: log-odds by which suppression takes more: above 0 for a track that was reported as a target, below
                0 for one that was suppressed.
        """
        if len(self._classes) == 1:
            return Label(self._classes[0])
        if not self._class_weight:
            return Label(UNKNOWN)
        means = self._class_means()
        if self.target < -max(margin, 0.0):
            return Label(CLUTTER)
        if means[self._uav] >= -(thresholds.distractor_log_odds + margin):
            return Label(UAV if means[self._uav] > thresholds.uav_log_odds else UNKNOWN)
        if not may_suppress:
            return Label(UNKNOWN, NOT_CALIBRATED)
        if self.novelty > thresholds.max_novelty:
            return Label(UNKNOWN, UNLIKE_TRAINING)
        others = [(mean, name) for mean, name in zip(means, self._classes, strict=True) if name != UAV]
        return Label(max(others, key=lambda other: other[0])[1])

    def _decay(self, pts_s: float) -> None:
        if math.isnan(self._first_s):
            self._first_s = self._last_s = pts_s
        factor = math.exp(-(pts_s - self._last_s) / self._time_constant_s)
        self._last_s, self._means = pts_s, None
        self._class_sums = [total * factor for total in self._class_sums]
        self._class_weight *= factor
        self._target_sum, self._target_weight = self._target_sum * factor, self._target_weight * factor
        self._novelty_sum, self._novelty_weight = self._novelty_sum * factor, self._novelty_weight * factor


def log_odds(score: float) -> float:
    """Return the log-odds of a probability, clipped to LIMIT."""
    score = min(max(score, 1e-4), 1 - 1e-4)
    return min(max(math.log(score / (1 - score)), -LIMIT), LIMIT)


def class_log_odds(class_scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return each class's log-odds minus those of the best other class, clipped to LIMIT.

    A single class has no other to compare with: its evidence is 0.

    Args:
        class_scores: (N, C) probabilities.
    """
    if class_scores.shape[1] == 1:
        return np.zeros(class_scores.shape)
    scores = np.clip(class_scores.astype(float), 1e-4, 1 - 1e-4)
    odds = np.log(scores / (1 - scores))
    second, best = np.partition(odds, -2, axis=1)[:, -2:].T[:, :, None]
    is_best = np.arange(odds.shape[1]) == odds.argmax(axis=1)[:, None]
    limited: NDArray[np.float64] = np.clip(odds - np.where(is_best, second, best), -LIMIT, LIMIT)
    return limited
