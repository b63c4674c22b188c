"""Measurements of `dasnet bench`, and the statistics computed from them."""

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
    "one forward pass from float32 images in memory to float32 logits in memory, on new random noise; "
    "without decoding, resizing and masks"
)
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
ALLOCATOR_SETTINGS = ("LD_PRELOAD", "MALLOC_", "GLIBC_TUNABLES", "PYTORCH_")  # prefixes of environment variables
PACKAGES = ("torch", "onnx", "onnxruntime", "openvino")


@dataclass(frozen=True)
class Variant:
    """A candidate in one precision, with a number of threads."""

    candidate: str
    precision: str
    threads: int

    def __str__(self) -> str:
        return f"{self.candidate} {self.precision}, threads {self.threads}"

    @property
    def slug(self) -> str:
        """The variant as a file name."""
        return "".join(letter if letter.isalnum() else "-" for letter in str(self))


@dataclass(frozen=True)
class Timing:
    """One timed forward pass."""

    variant: Variant
    height_px: int
    width_px: int
    batch: int
    round: int
    seed: int
    ms: float  # for the whole batch


@dataclass(frozen=True)
class MaskComparison:
    """Overlap of a variant's mask of a real frame with the float64 mask."""

    variant: Variant
    frame: str
    both_px: int  # intersection
    either_px: int  # union


@dataclass
class Report:
    """All results, in the order in which they were measured."""

    machine: dict[str, Any]
    checkpoint: dict[str, Any]
    settings: dict[str, Any]
    frames: list[str] = field(default_factory=list)
    samples: list[Timing] = field(default_factory=list)
    errors: dict[tuple[Variant, tuple[int, int]], float] = field(default_factory=dict)
    masks: list[MaskComparison] = field(default_factory=list)
    unavailable: dict[tuple[str, str], str] = field(default_factory=dict)  # by candidate and precision
    failed: dict[Variant, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class TimingRow:
    """Timing of a variant at one input size and batch size.

    `times_reference` is the speed-up over the reference: the median over the rounds of the ratio within a round.
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
class MaskAgreement:
    """Agreement with the float64 masks; frames where both masks are empty are excluded from the mean."""

    candidate: str
    precision: str
    threads: int
    frames: int
    frames_with_target: int
    mean_iou: float | None
    worst_iou: float | None
    worst_frame: str | None


def machine() -> dict[str, Any]:
    """Describe this machine and its current load; call it before measuring."""
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
    """Return the identity of a checkpoint."""
    return {
        "file": path.name,  # without its folder: results are shared
        "sha256": metadata.sha256,
        "network": metadata.network,
        "arguments": metadata.arguments,
        "threshold": {band: decision.threshold for band, decision in metadata.thresholds.items()},
    }


def rows(report: Report) -> list[TimingRow]:
    """Return the timing of each variant at each setting, in the order in which they were measured."""
    times: dict[tuple[int, int, int, int], dict[Variant, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for sample in report.samples:
        setting = (sample.variant.threads, sample.height_px, sample.width_px, sample.batch)
        times[setting][sample.variant][sample.round] = sample.ms / sample.batch
    found = []
    for (threads, height, width, batch), variants in times.items():
        references = [variants.get(Variant(name, "fp32", threads), {}) for name in REFERENCES.values()]
        for variant, own in variants.items():
            ratios = [_median(ms[number] / own[number] for number in own if number in ms) for ms in references]
            values = list(own.values())
            median, p95 = float(np.median(values)), float(np.percentile(values, 95))
            error = report.errors.get((variant, (height, width)))
            figures = (len(own), median, p95, ratios[0], ratios[1], ratios[2], error)
            found.append(TimingRow(variant.candidate, variant.precision, threads, height, width, batch, *figures))
    return found


def mask_rows(report: Report) -> list[MaskAgreement]:
    """Return the agreement of each variant's masks with those of float64."""
    masks: dict[Variant, list[MaskComparison]] = defaultdict(list)
    for mask in report.masks:
        masks[mask.variant].append(mask)
    found = []
    for variant, own in masks.items():
        ious = {mask.frame: mask.both_px / mask.either_px for mask in own if mask.either_px}
        worst = min(ious, key=ious.__getitem__) if ious else None
        mean = float(np.mean(list(ious.values()))) if ious else None
        figures = (len(own), len(ious), mean, ious[worst] if worst else None, worst)
        found.append(MaskAgreement(variant.candidate, variant.precision, variant.threads, *figures))
    return found


def _median(values: Iterable[float]) -> float | None:
    listed = list(values)
    return float(np.median(listed)) if listed else None


def as_json(report: Report, timings: list[TimingRow], masks: list[MaskAgreement]) -> dict[str, Any]:
    """Return the report as JSON; `samples` holds all forward passes in order."""
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
        "failed": [{**asdict(variant), "reason": reason} for variant, reason in report.failed.items()],
        "remarks": report.notes,
        "frames": report.frames,
        "samples": [
            {**asdict(sample.variant), **{key: value for key, value in vars(sample).items() if key != "variant"}}
            for sample in report.samples
        ],
    }
