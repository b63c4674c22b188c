"""Figures of evaluations and comparisons, drawn with matplotlib (extra `plot`).

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
FOUND, WRONG, MISSED = (255, 255, 255), (214, 39, 40), (31, 119, 180)
Reports = Mapping[str, Sequence[dict[str, Any]]]  # by model: one report a seed


def can_plot() -> bool:
    return find_spec("matplotlib") is not None


def plot_precision_recall(reports: Reports, target: str, path: Path) -> None:
    """One line a seed, one colour a model; a dot where the threshold is 0.5."""
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
    """Parameters against IoU: mean over seeds, and its deviation as a bar.  `models` as in a comparison."""
    axes = _axes()
    for colour, (name, model) in zip(_colours(models), models.items(), strict=True):
        iou, parameters_m = model["metrics"]["iou"], model["parameters"] / 1e6
        axes.errorbar(parameters_m, iou["mean"], yerr=iou["deviation"], fmt="o", capsize=3, color=colour)
        axes.annotate(name, (parameters_m, iou["mean"]), xytext=(6, 4), textcoords="offset points")
    axes.set(xscale="log", xlabel="parameters, millions", ylabel="IoU, mean over images", title="size against accuracy")
    axes.margins(x=0.2, y=0.15)
    _save(axes.figure, path)


def read_log(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Column -> (step, value) of a training's log.csv, in which empty cells are left out."""
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
    """Loss, and validation where it is logged (columns `val_*`), by step: one line a seed, one colour a model."""
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
    """A row an image: input, truth, and a column a model, with what it found white, what it found wrongly red, and what
    it missed blue.  Raises ValueError where the models do not share an image."""
    by_name = {model: {sample.name: sample for sample in own} for model, own in samples.items()}
    shared = sorted(set.intersection(*(set(own) for own in by_name.values())) if by_name else [])
    if not shared:
        raise ValueError("the models' samples share no image")
    titles = ["input", "truth", *by_name]
    figure = _figure(1.6 * len(titles), 1.7 * len(shared) + 0.3)
    for row, name in zip(figure.subplots(len(shared), len(titles), squeeze=False), shared, strict=True):
        first = next(iter(by_name.values()))[name]
        truth = np.repeat(first.truth[..., None] * np.uint8(255), 3, axis=2)
        pictures = [first.image, truth, *(judged(own[name]) for own in by_name.values())]
        for axes, picture, title in zip(row, pictures, titles, strict=True):
            axes.imshow(picture, interpolation="nearest")
            axes.set(xticks=[], yticks=[], title=title if name == shared[0] else "")
    _save(figure, path)


def judged(sample: QualitativeSample) -> npt.NDArray[np.uint8]:
    """(h, w, 3) RGB: the mask in colours that say where it is right."""
    picture = np.zeros((*sample.mask.shape, 3), np.uint8)
    for where, colour in (
        (sample.mask & sample.truth, FOUND),
        (sample.mask & ~sample.truth, WRONG),
        (sample.truth & ~sample.mask, MISSED),
    ):
        picture[where] = colour
    return picture


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
