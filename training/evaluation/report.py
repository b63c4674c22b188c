"""Report of an evaluation, as JSON and as a table.  Pure.

In: the counts of each image.  Out: metrics averaged over images and pooled over pixels, of all images and by band and
target size; the counts themselves, with which `dasnet compare` pairs images.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from model.checkpoint import Loaded
from model.summary import PAPER
from training.evaluation.mask_metrics import (
    EPSILON,
    METRICS,
    NO_TARGET,
    SIZE_BINS,
    THRESHOLD,
    THRESHOLDS,
    Counts,
    image_metrics,
    pooled_metrics,
    precision_recall,
    size_bin,
)
from training.evaluation.qualitative import QualitativeSample

UAV, OBJECT = "uav", "object"  # target classes: uav, and any class
ALL, WITH_TARGET = "all", "with a target"
DIGITS = 6
EMPTY_IMAGE_NOTE = (
    "An image without a target counts 1 where nothing is predicted; else precision, Dice and IoU 0, recall 1.\n"
    "A target without any predicted pixel: precision 1, the others 0."
)


@dataclass(frozen=True)
class ImageResult:
    """Pixel counts of one image."""

    name: str  # recording/frame
    band: str
    diameter_px: float | None  # of its largest uav
    counts: dict[str, Counts]  # by target class: UAV, and OBJECT where a checkpoint has several classes
    counts_at_input: Counts | None  # of UAV, by the original's method


@dataclass
class Evaluation:
    """Results of all images."""

    images: list[ImageResult] = field(default_factory=list)
    histograms: dict[str, Counts] = field(default_factory=dict)  # by target class, see `threshold_histogram`
    samples: list[QualitativeSample] = field(default_factory=list)


@dataclass(frozen=True)
class Timing:
    """Milliseconds per frame: fp32, batch 1, 512x512, from a uint8 frame in memory to probabilities in memory."""

    engine: str  # name
    engine_ms: float
    module_ms: float  # the reference network, eager, on the same device


def groups(images: Sequence[ImageResult], target: str) -> dict[str, list[ImageResult]]:
    """Return images by group: all and each band; for UAV also those with a target, by its size, and those without.

    Empty groups are omitted.
    """
    bands = sorted({image.band for image in images})
    found: dict[str, list[ImageResult]] = {}
    for band in (ALL, *(bands if len(bands) > 1 else ())):
        members = found[band] = [image for image in images if band in (ALL, image.band)]
        if target == UAV:
            prefix = "" if band == ALL else f"{band}, "
            found[prefix + WITH_TARGET] = [image for image in members if image.diameter_px is not None]
            for name in (*SIZE_BINS, NO_TARGET):
                found[prefix + name] = [image for image in members if size_bin(image.diameter_px) == name]
    return {name: members for name, members in found.items() if members}


def group_metrics(counts: Sequence[Counts]) -> dict[str, Any]:
    """Return the metrics of a group of images."""
    rows = np.stack(counts)
    means = (round(float(mean), DIGITS) for mean in image_metrics(rows).mean(axis=0))
    pooled = (None if value is None else round(value, DIGITS) for value in pooled_metrics(rows))
    return {
        "images": len(rows),
        "per_image": dict(zip(METRICS, means, strict=True)),
        "pooled": dict(zip(METRICS, pooled, strict=True)),
    }


def as_json(
    evaluation: Evaluation, loaded: Loaded, seed: int | None, data: dict[str, Any], timing: Timing | None
) -> dict[str, Any]:
    """Return the whole report, with the counts of each image by column."""
    images, metadata = evaluation.images, loaded.metadata
    at_input = [image.counts_at_input for image in images if image.counts_at_input is not None]
    return {
        "model": metadata.network,
        "seed": seed,
        "parameters": sum(parameter.numel() for parameter in loaded.network.parameters()),
        "checkpoint": {"file": loaded.path.name, "sha256": metadata.sha256, "step": metadata.training.get("step")},
        "data": data,
        "threshold": THRESHOLD,
        "epsilon": EPSILON,
        "targets": {target: _target(evaluation, target) for target in evaluation.histograms},
        "at_input": group_metrics(at_input) if at_input else None,
        "timing": None if timing is None else {**asdict(timing), "paper_ms": PAPER[metadata.network].ms},
        "images": {
            "name": [image.name for image in images],
            "band": [image.band for image in images],
            "diameter_px": [None if d is None else round(d, 2) for d in (image.diameter_px for image in images)],
            **{target: [image.counts[target].tolist() for image in images] for target in evaluation.histograms},
        },
    }


def _target(evaluation: Evaluation, target: str) -> dict[str, Any]:
    curve = precision_recall(evaluation.histograms[target])
    average = curve.average_precision
    columns = {"threshold": THRESHOLDS.tolist(), "precision": curve.precision.tolist(), "recall": curve.recall.tolist()}
    return {
        "groups": {
            name: group_metrics([image.counts[target] for image in members])
            for name, members in groups(evaluation.images, target).items()
        },
        "average_precision": None if average is None else round(average, DIGITS),
        "curve": {name: [round(value, DIGITS) for value in values] for name, values in columns.items()},
    }


def table(report: dict[str, Any]) -> str:
    """Return the report as text."""
    return "\n".join(_lines(report))


def _lines(report: dict[str, Any]) -> Iterator[str]:
    data, paper = report["data"], PAPER[report["model"]]
    seed = "unknown" if report["seed"] is None else report["seed"]
    yield f"{report['model']}, seed {seed}, {report['parameters']:,} parameters, {report['checkpoint']['file']}"
    yield f"{data['folder']}, {data['split']}; masks at probability > {report['threshold']}"
    heads = "".join(f"{name:>11}" for name in METRICS)
    for target, result in report["targets"].items():
        yield ""
        yield f"{'':<24}{'':>8}{'mean over images':^44}{'pooled over pixels':^44}"
        yield f"{'target: ' + target:<24}{'images':>8}{heads}{heads}"
        for name, group in result["groups"].items():
            yield f"{name:<24}{_cells(group)}"
        yield f"average precision over pixels: {_cell(result['average_precision']).strip()}"
    yield EMPTY_IMAGE_NOTE
    yield ""
    if report["at_input"]:
        yield f"{'uav, as the original':<24}{_cells(report['at_input'])}"
        yield "At the network's input, mask > 0 after resizing, as measured by the original's scripts."
    yield f"In the paper, on its own 174,008 images, not measured here: Dice {paper.dice:.4f}, IoU {paper.miou:.4f}."
    timing = report["timing"]
    if timing:
        yield (
            f"ms per frame (fp32, batch 1, 512x512): {timing['engine_ms']:.1f} through the engine {timing['engine']}, "
            f"{timing['module_ms']:.1f} through the reference module; "
            f"in the paper {paper.ms:.2f} (A6000; not measured here)"
        )


def _cells(group: dict[str, Any]) -> str:
    return f"{group['images']:>8}" + "".join(
        _cell(group[kind][name]) for kind in ("per_image", "pooled") for name in METRICS
    )


def _cell(value: float | None) -> str:
    return f"{'-' if value is None else format(value, '.4f'):>11}"
