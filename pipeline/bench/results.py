"""What `dasnet bench` measured, and the figures that follow from it.  Nothing here is guessed."""

import importlib.metadata
import os
import platform
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.metadata import Metadata
from model.native.processor import cpuinfo, features
from pipeline import __version__
from pipeline.bench.worker import ALLOCATORS

REFERENCES = {"stock": "reference", "thp": "reference-thp", "kept": "reference-kept"}  # by allocator
TIMED = (
    "one forward, float32 images in memory to float32 logits in memory, on fresh noise; "
    "decoding, scaling and masks are not in it"
)
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
ALLOCATOR_SETTINGS = ("LD_PRELOAD", "MALLOC_", "GLIBC_TUNABLES", "PYTORCH_")  # how they begin
PACKAGES = ("torch", "onnx", "onnxruntime", "openvino")


@dataclass(frozen=True)
class Entrant:
    """A candidate as it runs: in one precision, on so many threads."""

    candidate: str
    precision: str
    threads: int

    def __str__(self) -> str:
        return f"{self.candidate} {self.precision}, threads {self.threads}"

    @property
    def slug(self) -> str:
        """For the name of a file."""
        return "".join(letter if letter.isalnum() else "-" for letter in str(self))


@dataclass(frozen=True)
class Sample:
    """One timed forward."""

    entrant: Entrant
    height_px: int
    width_px: int
    batch: int
    round: int
    seed: int
    ms: float  # of the whole batch


@dataclass(frozen=True)
class Mask:
    """A candidate's mask of a real frame beside float64's."""

    entrant: Entrant
    frame: str
    both_px: int
    either_px: int


@dataclass
class Report:
    """Filled while measuring, in the order of measuring."""

    machine: dict[str, Any]
    checkpoint: dict[str, Any]
    settings: dict[str, Any]
    frames: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    errors: dict[tuple[Entrant, tuple[int, int]], float] = field(default_factory=dict)
    masks: list[Mask] = field(default_factory=list)
    unavailable: dict[tuple[str, str], str] = field(default_factory=dict)  # by candidate and precision
    failed: dict[Entrant, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Row:
    """A candidate's figures at one size, batch and number of threads.

    `times_reference`: how many times as fast as the reference, the median over the rounds of the ratio within a round.
    """

    candidate: str
    precision: str
    threads: int
    height_px: int
    width_px: int
    batch: int
    rounds: int
    median_ms_per_frame: float
    p95_ms_per_frame: float
    times_reference: float | None
    times_reference_thp: float | None
    times_reference_kept: float | None
    max_logit_error: float | None


@dataclass(frozen=True)
class MaskRow:
    """Agreement with float64's masks.  Frames in which neither has a pixel say nothing, and are not in the mean."""

    candidate: str
    precision: str
    threads: int
    frames: int
    frames_with_target: int
    mean_iou: float | None
    worst_iou: float | None
    worst_frame: str | None


def machine() -> dict[str, Any]:
    """Of this moment: call it before anything is measured."""
    versions = {name: _version(name) for name in PACKAGES}
    return {
        "processor": cpuinfo("model name") or platform.processor() or "unknown",
        "features": sorted(features()),
        "cores_visible": os.cpu_count(),
        "cores_usable": len(os.sched_getaffinity(0)),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: version for name, version in versions.items() if version},
        "transparent_huge_pages": HUGE_PAGES.read_text().strip() if HUGE_PAGES.exists() else "unknown",
        "allocator_settings": {
            name: value for name, value in os.environ.items() if name.startswith(ALLOCATOR_SETTINGS)
        },
        "load_1min_at_start": round(os.getloadavg()[0], 2),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def describe_checkpoint(path: Path, metadata: Metadata) -> dict[str, Any]:
    return {
        "file": path.name,  # not where it lies: results are shared
        "sha256": metadata.sha256,
        "network": metadata.network,
        "arguments": metadata.arguments,
        "threshold": {band: decision.threshold for band, decision in metadata.thresholds.items()},
    }


def rows(report: Report) -> list[Row]:
    """In the order of measuring."""
    times: dict[tuple[int, int, int, int], dict[Entrant, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for sample in report.samples:
        setting = (sample.entrant.threads, sample.height_px, sample.width_px, sample.batch)
        times[setting][sample.entrant][sample.round] = sample.ms / sample.batch
    found = []
    for (threads, height, width, batch), entrants in times.items():
        references = [entrants.get(Entrant(name, "fp32", threads), {}) for name in REFERENCES.values()]
        for entrant, own in entrants.items():
            ratios = [_median(ms[number] / own[number] for number in own if number in ms) for ms in references]
            values = list(own.values())
            median, p95 = float(np.median(values)), float(np.percentile(values, 95))
            error = report.errors.get((entrant, (height, width)))
            figures = (len(own), median, p95, ratios[0], ratios[1], ratios[2], error)
            found.append(Row(entrant.candidate, entrant.precision, threads, height, width, batch, *figures))
    return found


def mask_rows(report: Report) -> list[MaskRow]:
    masks: dict[Entrant, list[Mask]] = defaultdict(list)
    for mask in report.masks:
        masks[mask.entrant].append(mask)
    found = []
    for entrant, own in masks.items():
        ious = {mask.frame: mask.both_px / mask.either_px for mask in own if mask.either_px}
        worst = min(ious, key=ious.__getitem__) if ious else None
        mean = float(np.mean(list(ious.values()))) if ious else None
        figures = (len(own), len(ious), mean, ious[worst] if worst else None, worst)
        found.append(MaskRow(entrant.candidate, entrant.precision, entrant.threads, *figures))
    return found


def _median(values: Iterable[float]) -> float | None:
    listed = list(values)
    return float(np.median(listed)) if listed else None


def as_json(report: Report, timings: list[Row], masks: list[MaskRow]) -> dict[str, Any]:
    """`samples` are all forwards in the order in which they were made."""
    return {
        "dasnet": __version__,
        "utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": report.machine,
        "checkpoint": report.checkpoint,
        "settings": report.settings,
        "timed": TIMED,
        "allocators": ALLOCATORS,
        "results": [asdict(row) for row in timings],
        "masks": [asdict(row) for row in masks],
        "unavailable": [
            {"candidate": candidate, "precision": precision, "reason": reason}
            for (candidate, precision), reason in report.unavailable.items()
        ],
        "failed": [{**asdict(entrant), "reason": reason} for entrant, reason in report.failed.items()],
        "remarks": report.remarks,
        "frames": report.frames,
        "samples": [
            {**asdict(sample.entrant), **{key: value for key, value in vars(sample).items() if key != "entrant"}}
            for sample in report.samples
        ],
    }
