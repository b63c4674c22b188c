"""What an assessment observed, as assess.json holds it.  Pure.

Times are seconds of observation: of video for recordings, with the camera connected and seeing for live ones.
"""

import math
from typing import Literal

import msgspec

from pipeline.types import Band, Severity

VERSION: Literal[1] = 1  # of assess.json
MAX_LOG_ODDS = 10.0

Role = Literal["alert", "record"]
Verdict = Literal["true", "false"]


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """An alert that the camera's own stream raised.

    Attributes:
        id: of the event that opened it; its row in OUT/store.sqlite.
        camera: its id.
        time_utc_ns: when its frame was received.
        time_s: seconds of observation before it.
        severity: alarm, or warning for a target of unknown class.
        label: of its track, when it was raised.
        log_odds: of its track's score, the highest while it lasted.
        snapshot: file in OUT/snapshots; None where it was not written.
        verdict: an operator's: true, a drone; false, dismissed; None, not reviewed.
    """

    id: str
    camera: str
    time_utc_ns: int
    time_s: float
    severity: Severity
    label: str
    log_odds: float
    snapshot: str | None
    verdict: Verdict | None = None


class SeededEncounter(msgspec.Struct, frozen=True, kw_only=True):
    """A drone that was pasted into a copy of the stream.

    Attributes:
        number: of the encounter within the camera's assessment.
        drone: name of the recorded drone.
        time_s: presentation time of its first frame in the stream.
        duration_s: how long it was visible.
        size_px: apparent size.
        contrast: to the background, in grey levels.
        delay_s: from its first frame to its first confirmed track as a target; None: not detected.
        log_odds: of that track's score, the highest; None: not detected.
        suppressed_as: label of a confirmed track that was suppressed, where it was not detected.
    """

    number: int
    drone: str
    time_s: float
    duration_s: float
    size_px: float
    contrast: float
    delay_s: float | None
    log_odds: float | None
    suppressed_as: str | None


class CameraObservation(msgspec.Struct, frozen=True, kw_only=True):
    """All of one camera.

    Attributes:
        id: of the camera.
        band: its band.
        frame_size_px: width and height; None: it gave no frame.
        observed_s: seconds of observation.
        blind_s: further seconds in which frames were frozen, dark, saturated or tampered with.
        frames: number of frames processed.
        dropped: number of frames of a live camera that came faster than they could be processed.
        error: why it could not be opened or was lost last; None: nothing failed.
        alarms: in their order.
        encounters: in their order; only those that were visible to their end.
        noise_map: usual change in each cell of a grid over the frame, grey levels, row by row.
    """

    id: str
    band: Band
    frame_size_px: tuple[int, int] | None
    observed_s: float
    blind_s: float
    frames: int
    dropped: int
    error: str | None
    alarms: list[Alarm]
    encounters: list[SeededEncounter]
    noise_map: list[list[float]]

    @property
    def hours(self) -> float:
        """Return the hours of observation."""
        return self.observed_s / 3600


class Assessment(msgspec.Struct, frozen=True, kw_only=True):
    """The content of assess.json, apart from the figures that are derived from it.

    Attributes:
        version: of this format.
        dasnet: version of the program.
        created_utc_ns: when the assessment ended.
        checkpoint: SHA-256 of the checkpoint's file.
        network: its network.
        engine: name of the inference engine.
        role: the declared role of the operating point.
        target_per_hour: alarms an hour to be claimed, and to which limits are set.
        seed: of the encounters.
        encounters_per_hour: their rate, per camera.
        requested_hours: of observation, per camera.
        complete: False where it ended early.
        cameras: all of the site.
    """

    version: Literal[1] = VERSION
    dasnet: str
    created_utc_ns: int
    checkpoint: str
    network: str
    engine: str
    role: Role
    target_per_hour: float
    seed: int
    encounters_per_hour: float
    requested_hours: float
    complete: bool
    cameras: list[CameraObservation]


def log_odds(score: float) -> float:
    """Return ln(score / (1 - score)), at most MAX_LOG_ODDS in size."""
    if not 0 < score < 1:
        return MAX_LOG_ODDS if score >= 1 else -MAX_LOG_ODDS
    return min(max(math.log(score / (1 - score)), -MAX_LOG_ODDS), MAX_LOG_ODDS)
