"""How a camera's tracks become alerts: the role of the operating point, and what its calibration allows.  Pure."""

import math
from dataclasses import dataclass

from model.metadata import Role, Thresholds


@dataclass(frozen=True)
class Policy:
    """The policy of one camera.

    Attributes:
        role: which limit of the checkpoint confirms a track.
        calibrated: the camera was assessed with this checkpoint, so its distractors may be suppressed ...
        frame_size_px: ... in frames of this size; None: of any.
        alert_log_odds: least log-odds of an alerted track's score, as the assessment chose it; None: it chose none.
    """

    role: Role = "alert"
    calibrated: bool = False
    alert_log_odds: float | None = None
    frame_size_px: tuple[int, int] | None = None

    def may_suppress(self, size_px: tuple[int, int]) -> bool:
        """Return whether distractors in frames of this size may be suppressed."""
        return self.calibrated and self.frame_size_px in (None, size_px)

    def confirm_log_odds(self, thresholds: Thresholds) -> float:
        """Return the least total evidence of a confirmed track."""
        return thresholds.confirm_log_odds if self.role == "alert" else thresholds.record_log_odds

    def is_enough(self, score: float) -> bool:
        """Return whether a track of this mean score may be alerted."""
        return self.alert_log_odds is None or score >= 1 / (1 + math.exp(-self.alert_log_odds))
