"""The files of an assessment: assess.json, report.html, and a calibration of each camera; and a table for terminals.

In: what was observed.  Out: files in OUT, each written as a whole.  The page contains everything (no script, nothing
fetched); all text is escaped.
"""

import time
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.assess.charts import alarm_chart, detection_chart, threshold_chart
from pipeline.assess.figures import Figures, camera_figures, hours_for_claim, site_figures
from pipeline.assess.observations import Assessment, CameraObservation
from pipeline.config.calibration import Calibration, Limits
from pipeline.redaction import redact

RESULTS, REPORT = "assess.json", "report.html"


def write_outputs(assessment: Assessment, out: Path) -> Path:
    """Write all files and return the report's path."""
    every = _figures(assessment)
    content = msgspec.to_builtins(assessment) | {"figures": [msgspec.to_builtins(one) for one in every]}
    _write(out / RESULTS, redact(msgspec.json.format(msgspec.json.encode(content), indent=2).decode()) + "\n")
    for camera, figures in zip(assessment.cameras, every, strict=False):
        calibration = calibration_of(assessment, camera, figures)
        if calibration is not None:
            _write(out / f"{camera.id}.calibration.json", calibration.model_dump_json(indent=1) + "\n")
    return _write(out / REPORT, redact(_page(assessment, every)))


def calibration_of(assessment: Assessment, camera: CameraObservation, figures: Figures) -> Calibration | None:
    """Return a camera's calibration, or None where the camera was not observed."""
    if camera.frame_size_px is None or not camera.observed_s:
        return None
    return Calibration(
        version=1,
        camera=camera.id,
        band=camera.band,
        frame_size_px=camera.frame_size_px,
        checkpoint=assessment.checkpoint,
        role=assessment.role,
        hours=round(camera.hours, 4) or 0.0001,
        created_utc_ns=assessment.created_utc_ns,
        limits=Limits(alert_log_odds=figures.limit, alarms_per_hour=assessment.target_per_hour),
        noise_map=camera.noise_map,
    )


def summary_table(assessment: Assessment) -> str:
    """Return a line per camera, and the claims."""
    every = _figures(assessment)
    rows = [("camera", "role", "hours", "alarms/h (95%)", "detected (95%)", "delay s (median, p90)")]
    rows += [(one.name, one.role, *_cells(one)) for one in every]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, *(f"{one.name}: {claim(one, assessment.target_per_hour)}" for one in every)])


def claim(figures: Figures, target_per_hour: float) -> str:
    """Return what can be claimed of false alarms, and what a claim of the target still takes."""
    rate = figures.rate
    if rate.at_most is None:
        return "nothing was observed"
    text = f"at most {rate.at_most:.3g} false alarms an hour at 95%"
    if rate.hours_needed:
        return f"{text}; {rate.hours_needed:.1f} h more without one for a claim of {target_per_hour:g}/h"
    return f"{text}: {target_per_hour:g}/h is proven"


def _figures(assessment: Assessment) -> list[Figures]:
    """Return the figures of every camera, and of all where there are several."""
    role, target = assessment.role, assessment.target_per_hour
    every = [camera_figures(camera, role, target) for camera in assessment.cameras]
    return [*every, site_figures(assessment.cameras, role, target)] if len(every) > 1 else every


def _cells(figures: Figures) -> tuple[str, str, str, str]:
    rate, detection = figures.rate, figures.detection
    alarms = "-" if rate.per_hour is None else f"{rate.per_hour:.3g} ({rate.low:.2g} to {rate.high:.3g})"
    found = f"{detection.detected} of {detection.encounters}"
    if detection.probability is not None:
        found += f", {detection.probability:.2f} ({detection.low:.2f} to {detection.high:.2f})"
    median_s, p90_s = detection.delay_median_s, detection.delay_p90_s
    delay = "-" if median_s is None or p90_s is None else f"{median_s:.2f}, {p90_s:.2f}"
    return f"{rate.hours:.3g}", alarms, found, delay


def _page(assessment: Assessment, every: list[Figures]) -> str:
    cards: list[dict[str, Any]] = []
    for index, figures in enumerate(every):
        is_camera = index < len(assessment.cameras)
        cameras = assessment.cameras[index : index + 1] if is_camera else assessment.cameras
        cards.append(
            {
                "figures": figures,
                "cells": _cells(figures),
                "claim": claim(figures, assessment.target_per_hour),
                "camera": cameras[0] if is_camera else None,
                "charts": [detection_chart(figures), alarm_chart(cameras), threshold_chart(figures)],
            }
        )
    created = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(assessment.created_utc_ns / 1e9))
    hours = hours_for_claim(0, assessment.target_per_hour)
    template = _environment().get_template("report.html")
    return template.render(assessment=assessment, cards=cards, created=created, hours_for_claim=hours)


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("pipeline.assess"), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )


def _write(path: Path, text: str) -> Path:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8", newline="\n")
    return partial.replace(path)
