"""Plots of evaluations and comparisons, with matplotlib (extra `plot`).

In: evaluation reports (see `training.evaluation.report`), logs, samples.  Out: PNG files.
"""

import csv
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from training.evaluation.qualitative import QualitativeSample

DPI = 120
COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown", "tab:pink", "tab:olive")
TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE = (255, 255, 255), (214, 39, 40), (31, 119, 180)
Reports = Mapping[str, Sequence[dict[str, Any]]]  # by model: a report per seed


def can_plot() -> bool:
    """Return whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def plot_precision_recall(reports: Reports, target: str, path: Path) -> None:
    """Plot precision against recall: a line per seed, a colour per model, a dot at threshold 0.5."""
    axes = _axes()
    for colour, (model, seeds) in zip(_colours(reports), reports.items(), strict=True):
        for index, report in enumerate(seeds):
            curve = report["targets"][target]["curve"]
            middle = int(np.argmin(np.abs(np.array(curve["threshold"]) - report["threshold"])))
            axes.plot(curve["recall"], curve["precision"], color=colour, lw=1, label=None if index else model)
            axes.plot(curve["recall"][middle], curve["precision"][middle], "o", color=colour, ms=4)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02), title=f"{target}, over pixels")
    axes.legend(fontsize=8)
    _save(axes.figure, path)


def plot_parameters(models: Mapping[str, dict[str, Any]], path: Path) -> None:
    """Plot parameters against IoU, mean and deviation over seeds; `models` as in a comparison."""
    axes = _axes()
    for colour, (name, model) in zip(_colours(models), models.items(), strict=True):
        iou, parameters_m = model["metrics"]["iou"], model["parameters"] / 1e6
        axes.errorbar(parameters_m, iou["mean"], yerr=iou["deviation"], fmt="o", capsize=3, color=colour)
        axes.annotate(name, (parameters_m, iou["mean"]), xytext=(6, 4), textcoords="offset points")
    axes.set(xscale="log", xlabel="parameters, millions", ylabel="IoU, mean over images", title="size against accuracy")
    axes.margins(x=0.2, y=0.15)
    _save(axes.figure, path)


def read_log(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Return (step, value) by column of a training's log.csv, without empty cells."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    time = "step" if rows and "step" in rows[0] else "epoch"
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for name, cell in row.items():
            if name != time and cell:
                curves.setdefault(name, []).append((float(row[time]), float(cell)))
    return curves


def plot_training(logs: Mapping[str, Sequence[Path]], path: Path) -> None:
    """Plot loss and logged validation metrics (columns `val_*`) by step: a line per seed, a colour per model."""
    read = {model: [read_log(log) for log in paths] for model, paths in logs.items()}
    seen = dict.fromkeys(name for curves in read.values() for curve in curves for name in curve)
    columns = ["loss", *(name for name in seen if name.startswith("val_"))]
    figure = _figure(5 * len(columns), 4)
    for axes, column in zip(figure.subplots(1, len(columns), squeeze=False)[0], columns, strict=True):
        for colour, (model, curves) in zip(_colours(read), read.items(), strict=True):
            for index, curve in enumerate(curves):
                steps, values = zip(*curve.get(column, [(np.nan, np.nan)]), strict=True)
                marker = "." if len(steps) < 10 else None
                axes.plot(steps, values, color=colour, lw=1, marker=marker, label=None if index else model)
        axes.set(xlabel="step", title=column)
        axes.legend(fontsize=8)
    _save(figure, path)


def plot_samples(samples: Mapping[str, Sequence[QualitativeSample]], path: Path) -> None:
    """Plot a row per image: input, truth, and each model's true positives (white), false ones (red), misses (blue).

    Raise ValueError where the models share no image.
    """
    by_name = {model: {sample.name: sample for sample in own} for model, own in samples.items()}
    shared = sorted(set.intersection(*(set(own) for own in by_name.values())) if by_name else [])
    if not shared:
        raise ValueError("the models' samples share no image")
    titles = ["input", "truth", *by_name]
    figure = _figure(1.6 * len(titles), 1.7 * len(shared) + 0.3)
    for row, name in zip(figure.subplots(len(shared), len(titles), squeeze=False), shared, strict=True):
        first = next(iter(by_name.values()))[name]
        truth = np.repeat(first.truth[..., None] * np.uint8(255), 3, axis=2)
        images = [first.image, truth, *(error_map(own[name]) for own in by_name.values())]
        for axes, image, title in zip(row, images, titles, strict=True):
            axes.imshow(image, interpolation="nearest")
            axes.set(xticks=[], yticks=[], title=title if name == shared[0] else "")
    _save(figure, path)


def error_map(sample: QualitativeSample) -> npt.NDArray[np.uint8]:
    """Return the mask as (h, w, 3) RGB, coloured by true positives, false positives and false negatives."""
    image = np.zeros((*sample.mask.shape, 3), np.uint8)
    for where, colour in (
        (sample.mask & sample.truth, TRUE_POSITIVE),
        (sample.mask & ~sample.truth, FALSE_POSITIVE),
        (sample.truth & ~sample.mask, FALSE_NEGATIVE),
    ):
        image[where] = colour
    return image


def _colours(models: Mapping[str, object]) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index in range(len(models))]


def _figure(width_in: float, height_in: float) -> Any:
    from matplotlib.figure import Figure  # no display, no global state

    return Figure((width_in, height_in), layout="constrained")


def _axes() -> Any:
    return _figure(6, 4.5).subplots()


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)
