"""Output of `dasnet bench`: render a report as tables on stdout, a JSON file and a plot."""

import json
import sys
from collections import defaultdict
from importlib import import_module
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.bench.results import REFERENCES, TIMED, MaskAgreement, Report, TimingRow, as_json, mask_rows, rows
from pipeline.bench.worker import ALLOCATORS

MAX_IDLE_LOAD = 0.5  # load average above which timings are reported as unreliable


def publish(report: Report, json_path: Path | None, plot_path: Path | None) -> int:
    """Print the report, and write the requested files.

    Returns:
        The exit code: 1 where a candidate failed.
    """
    if float(report.machine["load_1min_at_start"]) > MAX_IDLE_LOAD:
        load = report.machine["load_1min_at_start"]
        report.notes.append(f"load {load} at the start: other programs were running, timings are unreliable")
    timings, masks = rows(report), mask_rows(report)
    _show(report, timings, masks)
    if json_path:
        json_path.write_text(json.dumps(as_json(report, timings, masks), indent=1) + "\n", encoding="utf-8")
        print(f"figures: {json_path}")
    if plot_path and timings:
        _plot(report, timings, plot_path)
        print(f"plot: {plot_path}")
    return 1 if report.failed else 0


def _show(report: Report, timings: list[TimingRow], masks: list[MaskAgreement]) -> None:
    console = Console(file=sys.stdout, highlight=False)
    about = report.machine
    versions = ", ".join(f"{name} {version}" for name, version in about["packages"].items())
    print(f"{about['processor']}, {about['cores_usable']} cores; {', '.join(about['features'])}; {versions}")
    print(f"measured: {TIMED}")
    for allocator, meaning in ALLOCATORS.items():
        print(f"{REFERENCES[allocator]}: the reference implementation, eager float32; allocator: {meaning}")
    print("torch, inductor: the exact rewrite (model.fused), eager and with torch.compile")
    for title in dict.fromkeys(_title(row) for row in timings):
        console.print(_timing_table(title, [row for row in timings if _title(row) == title]))
    for threads in dict.fromkeys(row.threads for row in masks):
        console.print(_mask_table(threads, [row for row in masks if row.threads == threads]))
    precisions_by: dict[tuple[str, str], list[str]] = defaultdict(list)
    for (candidate, precision), reason in report.unavailable.items():
        precisions_by[candidate, reason].append(precision)
    for (candidate, reason), precisions in precisions_by.items():
        print(f"not available: {candidate} {', '.join(precisions)}: {reason}")
    for variant, reason in report.failed.items():
        print(f"FAILED: {variant}: {reason}")
    for remark in report.notes:
        print(f"note: {remark}")


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("candidate", no_wrap=True)
    table.add_column("")
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def _timing_table(title: str, timings: list[TimingRow]) -> Table:
    times = ("speed-up\nref.", "speed-up\n-thp", "speed-up\n-kept")
    table = _table(title, "median\nms/frame", "p95\nms/frame", *times, "logit\nerror")
    for row in timings:
        ratios = [_or_dash(value, ".2f") for value in _times(row)]
        milliseconds = [f"{row.median_ms_per_frame:.1f}", f"{row.p95_ms_per_frame:.1f}"]
        table.add_row(row.candidate, row.precision, *milliseconds, *ratios, _or_dash(row.max_logit_error, ".1e"))
    return table


def _mask_table(threads: int, masks: list[MaskAgreement]) -> Table:
    title = f"masks of {masks[0].frames} real frames compared with float64, threads {threads}"
    table = _table(title, "with a\ntarget", "mean\nIoU", "worst\nIoU", "worst frame")
    for row in masks:
        ious = [_or_dash(value, ".4f") for value in (row.mean_iou, row.worst_iou)]
        table.add_row(row.candidate, row.precision, str(row.frames_with_target), *ious, escape(row.worst_frame or "-"))
    return table


def _title(row: TimingRow) -> str:
    return f"{row.height_px}x{row.width_px}, batch {row.batch}, threads {row.threads}"


def _times(row: TimingRow) -> tuple[float | None, ...]:
    return row.times_reference, row.times_reference_thp, row.times_reference_kept


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _plot(report: Report, timings: list[TimingRow], path: Path) -> None:
    """Plot a row per setting: time per frame, and speed-up over the reference."""
    titles = list(dict.fromkeys(_title(row) for row in timings))
    most = max(sum(_title(row) == title for row in timings) for title in titles)
    figure = import_module("matplotlib.figure").Figure((12, (0.35 * most + 1.2) * len(titles)), layout="constrained")
    for (left, right), title in zip(figure.subplots(len(titles), 2, squeeze=False), titles, strict=True):
        chosen = [row for row in timings if _title(row) == title][::-1]
        labels = [f"{row.candidate} {row.precision}" for row in chosen]
        milliseconds = left.barh(labels, [row.median_ms_per_frame for row in chosen], color="tab:blue")
        left.bar_label(milliseconds, fmt="%.1f", padding=3)
        left.set(title=title, xlabel="median ms per frame")
        ratios = right.barh(labels, [row.times_reference or 0.0 for row in chosen], color="tab:green")
        right.bar_label(ratios, labels=[_or_dash(row.times_reference, ".2f") for row in chosen], padding=3)
        right.set(title="speed-up over the reference", yticklabels=[])
        for axes in (left, right):
            axes.margins(x=0.15)
    figure.suptitle(f"{report.machine['processor']}, torch {report.machine['packages'].get('torch')}")
    figure.savefig(path, dpi=120)
