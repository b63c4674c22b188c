"""A comparison as Markdown, for the terminal and for a file.

In: the result of `training.evaluation.compare.compare`.  Out: tables that are readable unrendered.  Pure.
"""

from collections.abc import Iterator, Sequence
from typing import Any

LEVELS = {"seed": "by seed (means over images)", "image": "by image (means over seeds)"}
NOTES = """\
± is the standard deviation over seeds (n - 1). p values are two-sided: t of the paired t-test, W of the Wilcoxon
signed-rank test, each with Holm's correction over the networks (Holm, 1979). d_z: mean over deviation of the
differences (Lakens, 2013, doi 10.3389/fpsyg.2013.00863); d: by the pooled deviation (Cohen, 1988). With three seeds W
cannot be below 0.25. Images of one recording are not independent: p values by image are too small.
"""


def markdown(comparison: dict[str, Any], plots: Sequence[str]) -> str:
    """Return the comparison as Markdown; `plots` are image files beside it."""
    return "\n".join(_lines(comparison, plots))


def _lines(comparison: dict[str, Any], plots: Sequence[str]) -> Iterator[str]:
    data, models, reference = comparison["data"], comparison["models"], comparison["reference"]
    yield "# Comparison"
    yield ""
    seeds = ", ".join(map(str, comparison["seeds"]))
    yield f"{comparison['images']} images of {data['folder']}, {data['split']}; seeds {seeds}."
    yield f"Masks of class uav at probability > {comparison['threshold']}."
    yield ""
    names = list(next(iter(models.values()))["metrics"])
    rows = [
        [name, f"{model['parameters'] / 1e6:.2f}", *(_spread(model["metrics"].get(metric)) for metric in names)]
        for name, model in sorted(models.items(), key=lambda item: -item[1]["metrics"]["iou"]["mean"])
    ]
    yield from _table(["network", "parameters, M", *names], rows)
    for metric, levels in comparison["tests"].items():
        for level, tests in levels.items():
            if tests:
                yield ""
                yield f"## {metric} against {reference}, {LEVELS[level]}"
                yield ""
                heads = ["network", "pairs", "difference", "p (t)", "Holm", "p (W)", "Holm", "d_z", "d"]
                yield from _table(heads, [_test(name, test) for name, test in tests.items()])
    yield ""
    yield NOTES
    yield from (f"![{plot.removesuffix('.png').replace('_', ' ')}]({plot})" for plot in plots)


def _test(name: str, test: dict[str, Any]) -> list[str]:
    p_values = [_p(test[key]) for key in ("t_p", "t_p_holm", "wilcoxon_p", "wilcoxon_p_holm")]
    effects = ["-" if test[key] is None else f"{test[key]:+.2f}" for key in ("d_paired", "d_pooled")]
    return [name, str(test["pairs"]), f"{test['difference']:+.4f}", *p_values, *effects]


def _spread(metric: dict[str, Any] | None) -> str:
    if metric is None:
        return "-"
    deviation = "" if metric["deviation"] is None else f" ± {metric['deviation']:.4f}"
    return f"{metric['mean']:.4f}{deviation}"


def _p(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if value >= 0.0001 else "< 0.0001"


def _table(heads: list[str], rows: list[list[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    for row in [heads, ["-" * width for width in widths], *rows]:
        yield "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
