"""Metadata of a checkpoint: everything about it but its weights.

`model.description` reads it from a file and validates each value against the types and ranges declared here.  Imports
no torch: the tracker needs thresholds, not the network.
"""

import json
import math
import re
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

METADATA_KEY = "dasnet"
DIGEST_KEY = "weights_sha256"
CLASSES = ("uav", "bird", "airplane", "helicopter")
CLUTTER = "clutter"  # false detections: a cloud's edge, a lamp, a mast
BANDS = ("infrared", "visible")


@dataclass(frozen=True)
class Range:
    """The closed interval that a number of the metadata must lie in."""

    least: float
    most: float


Share = Annotated[float, Range(0, 1)]
Scale = Annotated[float, Range(0.01, 64)]
Pixels = Annotated[float, Range(0, 4096)]
LogOdds = Annotated[float, Range(-100, 100)]
Sizes = Annotated[tuple[str, ...], re.compile(r"[1-9]\d{0,4}x[1-9]\d{0,4}")]
Role = Literal["alert", "record"]  # few false alarms, or nothing missed


@dataclass(frozen=True)
class Preprocessing:
    """How frames become the network's input, RGB in 0..1.

    Frames are stretched to size x size, or scaled by one factor per band and padded, never stretched.  With `grey`,
    colour is discarded: features learned from one sensor's colours do not generalise to another's.
    """

    mode: Literal["stretch", "scale"] = "stretch"
    size: Annotated[int, Range(8, 8192)] = 512
    scale: dict[str, Scale] = field(default_factory=lambda: {"infrared": 1.0, "visible": 1.0})
    grey: bool = False


@dataclass(frozen=True)
class Fusion:
    """Weights of the logistic regression that fuses what is known of a detection into the log-odds of a target.

    log-odds = `bias` + `judge` x the judge's log-odds
    + `mask` + `mask_log_odds` x the log-odds of the mask's score, where there is a mask
    + `motion` + `motion_log` x the logarithm of the motion score, where there is motion.

    The logarithm of a class's probability is the judge's + `mask_classes` x the network's own, where there is a mask,
    up to a constant: the network knows its cameras' distractors better, and those of others worse.
    """

    bias: LogOdds = 0.0
    judge: LogOdds = 1.0
    mask: LogOdds = 0.0
    mask_log_odds: LogOdds = 0.0
    motion: LogOdds = 0.0
    motion_log: LogOdds = 0.0
    mask_classes: Share = 0.0
    min_score: Share = 0.1  # what is less probable is dropped


@dataclass(frozen=True)
class JudgeConfig:
    """Classes of the judge (`model.judge`), and how its verdicts are fused."""

    classes: tuple[str, ...] = CLASSES
    frames: Annotated[int, Range(2, 16)] = 5
    fusion: Fusion = Fusion()


@dataclass(frozen=True)
class Thresholds:
    """Operating point of one band, chosen on labelled clips.

    `threshold`, `min_area_px`, `continue_area_ratio`, `min_score` and `box_margin_px` turn probability maps into
    detections; `uav_log_odds` and `distractor_log_odds` turn tracks into alerts.  Pixels are those of the network's
    input.
    """

    threshold: Share = 0.5  # minimum of a pixel's largest class probability
    min_area_px: Pixels = 1.0
    continue_area_ratio: Share = 1.0  # of min_area_px: detections of this area continue confirmed tracks, start none
    min_score: Share = 0.0  # minimum of a detection's mean probability
    box_margin_px: Pixels = 0.0  # added to each side of a box
    start_score: Share = 0.0  # of a detection that starts a track; less probable ones continue confirmed tracks
    confirm_log_odds: LogOdds = -100.0  # total evidence of a target that confirms a track, role `alert` ...
    record_log_odds: LogOdds = -100.0  # ... and role `record`
    max_novelty: Annotated[float, Range(0, 100)] = 100.0  # of a track that may be suppressed
    known_sizes: Sizes = ()  # WIDTHxHEIGHT of the cameras whose distractors training knew
    uav_log_odds: LogOdds = 0.0  # a track whose recent mean is above this is labelled uav
    distractor_log_odds: LogOdds = 0.8  # a track whose mean is below minus this is suppressed


BandThresholds = dict[str, Thresholds]


@dataclass(frozen=True)
class Metadata:
    """Everything about a checkpoint but its weights; `sha256` is the file's digest, set on loading."""

    network: str = "dasnet"
    arguments: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ("uav",)
    preprocessing: Preprocessing = Preprocessing()
    judge: JudgeConfig | None = None
    thresholds: BandThresholds = field(default_factory=lambda: {band: Thresholds() for band in BANDS})
    training: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""

    @property
    def detected_classes(self) -> tuple[str, ...]:
        """Return the classes of detections: the judge's where there is one, else the network's."""
        return self.judge.classes if self.judge else self.classes


def describe(metadata: Metadata) -> str:
    """Return the metadata as JSON, for the header of the file; what a run recorded as not finite is null."""
    described = {key: value for key, value in asdict(metadata).items() if key != "sha256"}
    return json.dumps(_without_infinities(described), allow_nan=False)


def _without_infinities(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_infinities(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_infinities(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
