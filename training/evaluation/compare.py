"""`dasnet compare`: comparison of several networks, each trained with several seeds.

In: evaluations (folders that `dasnet evaluate --out` wrote, or its JSON files) on the same images, every network with
the same seeds.  Out: `comparison.json`, `comparison.md`, and plots.

Tests are paired, against one reference network, at two levels: by seed (a network's mean over images; as many pairs as
seeds) and by image (an image's mean over seeds).  Images of one recording are not independent, so that the p values of
tests by image are too small.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import ConfigError
from training.evaluation.comparison_report import markdown
from training.evaluation.evaluate import EVALUATION_FILE, SAMPLES_FOLDER
from training.evaluation.figures import can_plot, plot_parameters, plot_precision_recall, plot_samples, plot_training
from training.evaluation.mask_metrics import METRICS, image_metrics
from training.evaluation.qualitative import read_samples
from training.evaluation.report import UAV
from training.evaluation.statistics import Floats, holm, paired_test, spread

DEFAULT_REFERENCE = "dasnet"
TESTED = ("dice", "iou")
LOG_FILE = "log.csv"
IOU_OF_TARGETS = "iou, images with a target"


@dataclass(frozen=True)
class EvaluatedRun:
    """The evaluation of one trained network."""

    path: Path  # of its JSON file; samples/ and log.csv, where present, are beside it
    model: str
    seed: int
    report: dict[str, Any]
    values: Floats  # (images, METRICS), class uav


def run_compare(paths: Sequence[Path], out: Path, reference: str | None) -> None:
    """Compare evaluations and write the results; raise ConfigError for evaluations that cannot be compared."""
    runs = [read_run(path) for path in paths]
    comparison = compare(runs, reference)
    out.mkdir(parents=True, exist_ok=True)
    (out / "comparison.json").write_text(json.dumps(comparison, indent=1) + "\n", encoding="utf-8")
    skipped = plot(runs, comparison, out)
    text = markdown(comparison, sorted(path.name for path in out.glob("*.png")))
    (out / "comparison.md").write_text(text, encoding="utf-8")
    print(text)
    for line in skipped:
        print(line)
    print(f"written: {out}")


def read_run(path: Path) -> EvaluatedRun:
    """Return an evaluation; raise ConfigError where the file is not one, or has no seed."""
    path = path / EVALUATION_FILE if path.is_dir() else path
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        counts = np.array(report["images"][UAV], np.int64).reshape(-1, 3)
        model, seed = report["model"], report["seed"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"run {path}: no evaluation ({error!r}); expected the output of `dasnet evaluate`") from error
    if seed is None:
        raise ConfigError(f"run {path}: seed is unknown; expected a number, see `dasnet evaluate --seed`")
    return EvaluatedRun(path, model, seed, report, image_metrics(counts))


def by_model(runs: Sequence[EvaluatedRun]) -> dict[str, list[EvaluatedRun]]:
    """Return runs by model, in ascending order of seeds; raise ConfigError where runs are not comparable."""
    first = runs[0]
    table: dict[str, dict[int, EvaluatedRun]] = {}
    for run in runs:
        if run.report["images"]["name"] != first.report["images"]["name"]:
            raise ConfigError(f"run {run.path}: its images are not those of {first.path}; expected the same images")
        other = table.setdefault(run.model, {}).setdefault(run.seed, run)
        if other is not run:
            raise ConfigError(
                f"run {run.path}: {run.model} with seed {run.seed} is in {other.path} too; expected each once"
            )
    seeds = sorted({run.seed for run in runs})
    for model, own in table.items():
        missing = [str(seed) for seed in seeds if seed not in own]
        if missing:
            raise ConfigError(
                f"model {model}: no evaluation of seed {', '.join(missing)}; "
                f"expected every model with the same seeds ({', '.join(map(str, seeds))})"
            )
    return {model: [own[seed] for seed in seeds] for model, own in table.items()}


def compare(runs: Sequence[EvaluatedRun], reference: str | None = None) -> dict[str, Any]:
    """Return the comparison; raise ConfigError for runs that are not comparable, and an unknown reference."""
    models = by_model(runs)
    chosen = reference or (DEFAULT_REFERENCE if DEFAULT_REFERENCE in models else next(iter(models)))
    if chosen not in models:
        raise ConfigError(f"--reference {chosen}: no run of it; must be one of {', '.join(models)}")
    values = {model: np.stack([run.values for run in own]) for model, own in models.items()}  # (seeds, images, METRICS)
    return {
        "data": runs[0].report["data"],
        "images": len(runs[0].values),
        "threshold": runs[0].report["threshold"],
        "seeds": [run.seed for run in models[chosen]],
        "reference": chosen,
        "models": {model: _model(own, values[model]) for model, own in models.items()},
        "tests": {metric: _tests(values, chosen, METRICS.index(metric)) for metric in TESTED},
    }


def _model(runs: list[EvaluatedRun], values: Floats) -> dict[str, Any]:
    rows = {metric: values[..., index].mean(axis=1).tolist() for index, metric in enumerate(METRICS)}
    has_target = [diameter is not None for diameter in runs[0].report["images"]["diameter_px"]]
    if 0 < sum(has_target) < len(has_target):  # empty images raise the mean of a network without detections
        rows[IOU_OF_TARGETS] = values[:, has_target, METRICS.index("iou")].mean(axis=1).tolist()
    averages = [run.report["targets"][UAV]["average_precision"] for run in runs]
    if None not in averages:
        rows["average precision"] = averages
    return {
        "parameters": runs[0].report["parameters"],
        "metrics": {name: _over_seeds(row) for name, row in rows.items()},
    }


def _over_seeds(row: list[float]) -> dict[str, Any]:
    deviation = spread(row) if len(row) > 1 else None
    return {"mean": float(np.mean(row)), "deviation": deviation, "by_seed": row}


def _tests(values: dict[str, Floats], reference: str, metric: int) -> dict[str, Any]:
    """Return tests of model minus reference, by level and model, with p values corrected over the models (Holm)."""
    levels: dict[str, Callable[[Floats], Floats]] = {
        "seed": lambda of_model: of_model[..., metric].mean(axis=1),
        "image": lambda of_model: of_model[..., metric].mean(axis=0),
    }
    others = [model for model in values if model != reference]
    results: dict[str, Any] = {}
    for level, reduced in levels.items():
        tests = [paired_test(reduced(values[model]), reduced(values[reference])) for model in others]
        corrected = [holm([getattr(test, name) for test in tests]) for name in ("t_p", "wilcoxon_p")]
        results[level] = {
            model: {**asdict(test), "t_p_holm": t_p, "wilcoxon_p_holm": wilcoxon_p}
            for model, test, t_p, wilcoxon_p in zip(others, tests, *corrected, strict=True)
        }
    return results


def plot(runs: Sequence[EvaluatedRun], comparison: dict[str, Any], out: Path) -> list[str]:
    """Draw the plots; return a line for each that is skipped, with the reason."""
    if not can_plot():
        return ["plots are skipped: they need matplotlib (pip install dasnet[plot])"]
    models, skipped = by_model(runs), []
    reports = {model: [run.report for run in own] for model, own in models.items()}
    plot_precision_recall(reports, UAV, out / "precision_recall.png")
    plot_parameters(comparison["models"], out / "parameters.png")
    logs = {model: [run.path.parent / LOG_FILE for run in own] for model, own in models.items()}
    missing = [str(path) for paths in logs.values() for path in paths if not path.is_file()]
    if missing:
        skipped.append(f"training_curves.png is skipped: {missing[0]} is missing")
    else:
        plot_training(logs, out / "training_curves.png")
    samples = {model: read_samples(own[0].path.parent / SAMPLES_FOLDER) for model, own in models.items()}
    try:
        plot_samples(samples, out / "qualitative.png")
    except ValueError as error:
        skipped.append(f"qualitative.png is skipped: {error}")
    return skipped
