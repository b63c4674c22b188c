"""What is known of a checkpoint besides its weights.  Imports no torch: tracking needs thresholds, not the network.

`model/description.py` reads it, and holds each value to the type and the range that it has here.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

METADATA_KEY = "dasnet"
DIGEST_KEY = "weights_sha256"  # beside the metadata
CLASSES = ("uav", "bird", "airplane", "helicopter")
CLUTTER = "clutter"  # what was found and is none of these: a cloud's edge, a lamp, a mast
BANDS = ("infrared", "visible")


@dataclass(frozen=True)
class Range:
    """What a number of the metadata may be, both ends included."""

    least: float
    most: float


Share = Annotated[float, Range(0, 1)]
Scale = Annotated[float, Range(0.01, 64)]
Pixels = Annotated[float, Range(0, 4096)]
LogOdds = Annotated[float, Range(-100, 100)]


@dataclass(frozen=True)
class Preprocessing:
    """How frames become the network's input: RGB in 0..1, then either stretched to size x size, or scaled by one
    factor a band and padded, never stretched.  Without colour if `grey`: what was learned from one sensor's colours is
    worth less on another's."""

    mode: Literal["stretch", "scale"] = "stretch"
    size: Annotated[int, Range(8, 8192)] = 512
    scale: dict[str, Scale] = field(default_factory=lambda: {"infrared": 1.0, "visible": 1.0})
    grey: bool = False


@dataclass(frozen=True)
class ClassifierConfig:
    """How a found target is cut out, and what the classifier beside the network tells it from."""

    classes: tuple[str, ...] = (*CLASSES, CLUTTER)
    stages: Annotated[int, Range(1, 5)] = 5  # of the classifier, see model/classifier.py
    crop_px: Annotated[int, Range(8, 1024)] = 64
    enlarged_px: Annotated[int, Range(32, 1024)] = 96  # what a crop is enlarged to for the classifier
    context: Annotated[float, Range(1, 16)] = 2.125  # a crop's side in lengths of the target's box, ...
    # ... and at least
    least_px: dict[str, Annotated[float, Range(1, 1024)]] = field(
        default_factory=lambda: {"infrared": 24.0, "visible": 32.0}
    )


@dataclass(frozen=True)
class Thresholds:
    """The thresholds that turn probability maps into detections and tracks into alerts, chosen on labelled clips."""

    threshold: Share = 0.5  # of the object map, the largest class probability of a pixel
    min_area_px: Pixels = 1.0  # of a detection, in pixels of the network's input
    keep_share: Share = 1.0  # of that area: enough for what continues a confirmed track, and starts none
    min_score: Share = 0.0  # of a detection: its mean probability
    box_margin_px: Pixels = 0.0  # added to each side of a box, in pixels of the network's input
    uav_evidence: LogOdds = 0.0  # mean difference of log-odds, over the last seconds, above which it is a uav ...
    distractor_evidence: LogOdds = 0.8  # ... and how far below zero it must be to be silenced


BandThresholds = dict[str, Thresholds]  # a band


@dataclass(frozen=True)
class Metadata:
    """Everything about a checkpoint but its weights."""

    network: str = "dasnet"
    arguments: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ("uav",)
    preprocessing: Preprocessing = Preprocessing()
    closer_look: ClassifierConfig | None = None  # a checkpoint without a classifier has none
    decision: BandThresholds = field(default_factory=lambda: {band: Thresholds() for band in BANDS})
    training: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""  # of the file, set on loading

    @property
    def detected_classes(self) -> tuple[str, ...]:
        """Those that detections are told apart into."""
        return self.closer_look.classes if self.closer_look else self.classes


def describe(metadata: Metadata) -> str:
    """As JSON, for the header of the file."""
    return json.dumps({key: value for key, value in asdict(metadata).items() if key != "sha256"})
