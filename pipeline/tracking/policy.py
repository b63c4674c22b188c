"""How a camera's tracks become alerts: the role of the operating point, and what its calibration allows.  Pure."""

from dataclasses import dataclass

from model.metadata import Role


@dataclass(frozen=True)
class Policy:
    """The policy of one camera.

    Attributes:
        role: which limit of the checkpoint confirms a track.
        calibrated: the camera was assessed with this checkpoint, so its distractors may be suppressed.
        alert_log_odds: least mean log-odds of an alerted track, as the assessment chose it; None: it chose none.
    """

    role: Role = "alert"
    calibrated: bool = False
    alert_log_odds: float | None = None
