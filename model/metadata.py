"""What is known of a checkpoint besides its weights.  Imports no torch: tracking needs thresholds, not the network."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from model.errors import CheckpointError

METADATA_KEY = "dasnet"
CLASSES = ("uav", "bird", "airplane", "helicopter")
CLUTTER = "clutter"  # what was found and is none of these: a cloud's edge, a lamp, a mast
BANDS = ("infrared", "visible")


@dataclass(frozen=True)
class Preprocessing:
    """How frames become the network's input: RGB in 0..1, then either stretched to size x size, or scaled by one
    factor a band and padded, never stretched.  Without colour if `grey`: what was learned from one sensor's colours is
    worth less on another's."""

    mode: Literal["stretch", "scale"] = "stretch"
    size: int = 512
    scale: dict[str, float] = field(default_factory=lambda: {"infrared": 1.0, "visible": 1.0})
    grey: bool = False


@dataclass(frozen=True)
class CloserLook:
    """How a found target is cut out, and what the classifier beside the network tells it from."""

    classes: tuple[str, ...] = (*CLASSES, CLUTTER)
    stages: int = 5  # of the classifier, see model/classifier.py
    crop_px: int = 64
    enlarged_px: int = 96  # what a crop is enlarged to for the classifier
    context: float = 2.125  # a crop's side in lengths of the target's box, ...
    least_px: dict[str, float] = field(default_factory=lambda: {"infrared": 24.0, "visible": 32.0})  # ... and at least


@dataclass(frozen=True)
class Decision:
    """The thresholds that turn probability maps into detections and tracks into alerts, chosen on labelled clips."""

    threshold: float = 0.5  # of the object map, the largest class probability of a pixel
    min_area_px: float = 1.0  # of a detection, in pixels of the network's input
    keep_share: float = 1.0  # of that area: enough for what continues a confirmed track, and starts none
    min_score: float = 0.0  # of a detection: its mean probability
    box_margin_px: float = 0.0  # added to each side of a box, in pixels of the network's input
    uav_evidence: float = 0.0  # mean difference of log-odds, over the last seconds, above which it is a uav ...
    distractor_evidence: float = 0.8  # ... and how far below zero it must be to be silenced


Decisions = dict[str, Decision]  # a band


def decisions(described: dict[str, dict[str, float]]) -> Decisions:
    """One for each of BANDS, from what a checkpoint says of them.  Raises TypeError for other bands or keys."""
    unknown = set(described) - set(BANDS)
    if unknown:
        raise TypeError(f"decision for {', '.join(sorted(unknown))}; allowed: for {', '.join(BANDS)}")
    return {band: Decision(**described.get(band, {})) for band in BANDS}


@dataclass(frozen=True)
class Metadata:
    """Everything about a checkpoint but its weights."""

    network: str = "dasnet"
    arguments: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ("uav",)
    preprocessing: Preprocessing = Preprocessing()
    closer_look: CloserLook | None = None  # a checkpoint without a classifier has none
    decision: Decisions = field(default_factory=lambda: decisions({}))
    training: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""  # of the file, set on loading

    @property
    def detected_classes(self) -> tuple[str, ...]:
        """Those that detections are told apart into."""
        return self.closer_look.classes if self.closer_look else self.classes


def read_decisions(path: Path) -> Decisions:
    """The thresholds of a checkpoint, without reading its weights.  Raises CheckpointError."""
    try:
        return decisions(read_description(path).get("decision", {}))
    except (TypeError, AttributeError) as error:
        raise CheckpointError(f"checkpoint {path}: its metadata is not understood ({error})") from error


def read_description(path: Path) -> dict[str, Any]:
    """What the header says, without reading the weights; empty for a file of the original.  Raises CheckpointError."""
    if path.suffix != ".safetensors":
        return {}
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        described = json.loads(header.get("__metadata__", {}).get(METADATA_KEY, "{}"))
        return dict(described)
    except (OSError, ValueError, TypeError, AttributeError, MemoryError, OverflowError) as error:
        raise CheckpointError(f"checkpoint {path}: is damaged or no safetensors file ({error})") from error


def describe(metadata: Metadata) -> str:
    """As JSON, for the header of the file."""
    return json.dumps({key: value for key, value in asdict(metadata).items() if key != "sha256"})
