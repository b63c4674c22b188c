"""Make Grafana's dashboard from the definition below.

scripts/make_dashboard.py deploy/grafana/dashboard.json

Needs grafana-foundation-sdk (extra `test`).  In Grafana: Dashboards, New, Import; it asks for the Prometheus to read.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from grafana_foundation_sdk.builders import common, heatmap, prometheus, timeseries
from grafana_foundation_sdk.builders import dashboard as boards
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import StackingMode
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    DynamicConfigValue,
    VariableRefresh,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

DATASOURCE = DataSourceRef("prometheus", "${datasource}")
HOST = 'instance=~"$instance"'
CAMERA = f'{HOST},camera=~"$camera"'
RATE = "[$__rate_interval]"
OBJECTIVE = ("objective", f"max(dasnet_objective_seconds{{{HOST}}})")
WIDTH, HEIGHT = 8, 8  # of 24 columns


@dataclass(frozen=True)
class Figure:
    """A panel: expressions by the legend of their series."""

    title: str
    about: str
    unit: str
    series: tuple[tuple[str, str], ...]
    lowest: float | None = 0.0
    kind: str = "lines"  # or "stack" (all series but the objective), or "heat map"


def quantile(share: float, metric: str, by: str, selector: str) -> str:
    return f"histogram_quantile({share}, sum by ({by}, le) (rate({metric}_bucket{{{selector}}}{RATE})))"


def total(metric: str, by: str, selector: str = CAMERA) -> str:
    return f"sum by ({by}) (rate({metric}{{{selector}}}{RATE}))"


def quantiles(metric: str, selector: str) -> tuple[tuple[str, str], ...]:
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    return tuple(
        (name, f"histogram_quantile({share}, sum by (le) (rate({metric}_bucket{{{selector}}}{RATE})))")
        for name, share in shares.items()
    )


_STAGE, _TRACK, _ALERT = (
    f"dasnet_{name}_seconds" for name in ("stage_latency", "capture_to_track", "capture_to_alert")
)
_FRAMES = f"scalar(sum(rate({_TRACK}_count{{{HOST}}}{RATE})))"

ROWS: dict[str, tuple[Figure, ...]] = {
    "Latency": (
        Figure(
            "Capture to track", "From reception of a frame to its tracks.", "s", (*quantiles(_TRACK, CAMERA), OBJECTIVE)
        ),
        Figure("Capture to alert", "From reception of a frame to the stored alert.", "s", quantiles(_ALERT, CAMERA)),
        Figure(
            "Camera to track",
            "From the camera's timestamp of a frame to its tracks; accurate if the clocks of camera and host agree.",
            "s",
            quantiles("dasnet_camera_to_track_seconds", CAMERA),
        ),
        Figure(
            "Objective missed",
            "Share of tracked frames that missed the objective.",
            "percentunit",
            (
                (
                    "{{instance}}",
                    f"{total('dasnet_objective_missed_total', 'instance')} / {total(f'{_TRACK}_count', 'instance')}",
                ),
            ),
        ),
        Figure(
            "Latency budget",
            "Mean time per tracked frame in each stage; the stages up to tracking add up to capture to track.",
            "s",
            (("{{stage}}", f"{total(f'{_STAGE}_sum', 'stage', HOST)} / {_FRAMES}"), OBJECTIVE),
            kind="stack",
        ),
        Figure("p95 by stage", "", "s", (("{{stage}}", quantile(0.95, _STAGE, "stage", HOST)),)),
        Figure("p99 by stage", "", "s", (("{{stage}}", quantile(0.99, _STAGE, "stage", HOST)),)),
        Figure("p50 by stage", "", "s", (("{{stage}}", quantile(0.5, _STAGE, "stage", HOST)),)),
        Figure("p95 by camera", "", "s", (("{{camera}}", quantile(0.95, _TRACK, "camera", CAMERA)), OBJECTIVE)),
        Figure(
            "Capture to track, all frames",
            "Distribution of the latency over time.",
            "s",
            (("{{le}}", f"sum by (le) (increase({_TRACK}_bucket{{{CAMERA}}}{RATE}))"),),
            kind="heat map",
        ),
    ),
    "Cameras": (
        Figure(
            "Frames segmented",
            "Frames per second.",
            "cps",
            (("{{camera}}", total("dasnet_frames_segmented_total", "camera")),),
        ),
        Figure(
            "Frames captured",
            "Frames per second.",
            "cps",
            (("{{camera}}", total("dasnet_frames_captured_total", "camera")),),
        ),
        Figure(
            "Age of the newest tracked frame",
            "",
            "s",
            (("{{camera}}", f"max by (camera) (dasnet_frame_age_seconds{{{CAMERA}}})"),),
        ),
        Figure(
            "Blind",
            "Share of the time in which a camera was blind, by cause.",
            "percentunit",
            (("{{camera}} {{cause}}", total("dasnet_blind_seconds_total", "camera, cause")),),
        ),
        Figure(
            "Frames dropped",
            "Frames per second that were dropped before inference, by cause.",
            "cps",
            (("{{camera}} {{cause}}", total("dasnet_frames_dropped_total", "camera, cause")),),
        ),
        Figure(
            "Frames failed",
            "Frames per second whose processing failed, by cause.",
            "cps",
            (("{{camera}} {{cause}}", total("dasnet_frames_failed_total", "camera, cause")),),
        ),
        Figure(
            "Up",
            "1 while a camera delivers frames.",
            "none",
            (("{{camera}}", f"min by (camera) (dasnet_camera_up{{{CAMERA}}})"),),
        ),
        Figure(
            "Reconnections",
            "In the last ten minutes.",
            "none",
            (("{{camera}}", f"sum by (camera) (increase(dasnet_camera_reconnects_total{{{CAMERA}}}[10m]))"),),
        ),
        Figure(
            "Clock offset",
            "Host clock minus camera clock, where the camera sends its time.",
            "s",
            (("{{camera}}", f"max by (camera) (dasnet_clock_offset_seconds{{{CAMERA}}})"),),
            lowest=None,
        ),
    ),
    "Detection and alerts": (
        Figure("Active tracks", "", "none", (("{{camera}}", f"sum by (camera) (dasnet_tracks_active{{{CAMERA}}})"),)),
        Figure(
            "Tracks confirmed",
            "In the last ten minutes, as uav or unknown.",
            "none",
            (("{{camera}}", f"sum by (camera) (increase(dasnet_tracks_confirmed_total{{{CAMERA}}}[10m]))"),),
        ),
        Figure(
            "Alerts",
            "In the last ten minutes, by severity.",
            "none",
            (
                (
                    "{{camera}} {{severity}}",
                    f"sum by (camera, severity) (increase(dasnet_alerts_total{{{CAMERA}}}[10m]))",
                ),
            ),
        ),
        Figure(
            "Distractors",
            "Birds, airplanes and helicopters in the last ten minutes.",
            "none",
            (
                (
                    "{{camera}} {{class}}",
                    f"sum by (camera, class) (increase(dasnet_distractor_tracks_total{{{CAMERA}}}[10m]))",
                ),
            ),
        ),
        Figure(
            "Sink backlog",
            "Events not yet delivered.",
            "none",
            (("{{sink}}", f"sum by (sink) (dasnet_sink_backlog{{{HOST}}})"),),
        ),
    ),
    "Resources": (
        Figure(
            "CPU",
            "Cores in use, by worker.",
            "none",
            (("{{worker}}", total("dasnet_process_cpu_seconds_total", "worker", HOST)),),
            kind="stack",
        ),
        Figure(
            "Memory",
            "By worker.",
            "bytes",
            (("{{worker}}", f"sum by (worker) (dasnet_process_resident_bytes{{{HOST}}})"),),
            kind="stack",
        ),
        Figure(
            "Workers",
            "1 while a worker is running; restarts in the last ten minutes.",
            "none",
            (
                ("{{worker}}", f"min by (worker) (dasnet_worker_up{{{HOST}}})"),
                ("{{worker}} restarts", f"sum by (worker) (increase(dasnet_worker_restarts_total{{{HOST}}}[10m]))"),
            ),
        ),
        Figure(
            "Disk free",
            "Free share of the disks of the folders that a run writes to.",
            "percentunit",
            (
                (
                    "{{instance}} {{folder}}",
                    f"dasnet_disk_free_bytes{{{HOST}}} / dasnet_disk_size_bytes{{{HOST}}}",
                ),
            ),
        ),
        Figure(
            "Batch size",
            "Mean number of frames per batch.",
            "none",
            (
                (
                    "{{instance}}",
                    f"{total('dasnet_batch_size_sum', 'instance', HOST)}"
                    f" / {total('dasnet_batch_size_count', 'instance', HOST)}",
                ),
            ),
        ),
        Figure(
            "Credits in use",
            "Frames in flight, and the credit limit.",
            "none",
            (
                ("{{camera}}", f"sum by (camera) (dasnet_frames_in_flight{{{CAMERA}}})"),
                ("{{camera}} allowed", f"sum by (camera) (dasnet_credits{{{CAMERA}}})"),
            ),
        ),
        Figure(
            "GPU",
            "Utilisation.",
            "percentunit",
            (("{{device}}", f"dasnet_gpu_utilisation_ratio{{{HOST}}}"),),
        ),
        Figure(
            "GPU memory",
            "",
            "bytes",
            (
                ("{{device}}", f"dasnet_gpu_memory_used_bytes{{{HOST}}}"),
                ("{{device}} total", f"dasnet_gpu_memory_bytes{{{HOST}}}"),
            ),
        ),
        Figure(
            "Build",
            "Version, hash of the checkpoint and engine.",
            "none",
            (("{{instance}} {{version}} {{model}} {{engine}}", f"dasnet_build_info{{{HOST}}}"),),
        ),
    ),
}


def dashboard_json() -> str:
    board = (
        boards.Dashboard("dasnet")
        .uid("dasnet")
        .tags(["dasnet"])
        .refresh("10s")
        .time("now-15m", "now")
        .timezone("browser")
        .editable()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(boards.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(_variable("instance", "Host", "label_values(dasnet_worker_up, instance)"))
        .with_variable(_variable("camera", "Camera", f"label_values(dasnet_camera_up{{{HOST}}}, camera)"))
    )
    for title, figures in ROWS.items():
        board.with_row(boards.Row(title))
        for figure in figures:
            board.with_panel(_heat_map(figure) if figure.kind == "heat map" else _lines(figure))
    return JSONEncoder(sort_keys=True, indent=1).encode(board.build()) + "\n"


def _variable(name: str, label: str, query: str) -> boards.QueryVariable:
    return (
        boards.QueryVariable(name)
        .label(label)
        .datasource(DATASOURCE)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .include_all(True)
        .all_value(".*")
        .multi(True)
    )


def _lines(figure: Figure) -> timeseries.Panel:
    panel = (
        timeseries.Panel()
        .title(figure.title)
        .description(figure.about)
        .datasource(DATASOURCE)
        .unit(figure.unit)
        .span(WIDTH)
        .height(HEIGHT)
    )
    if figure.lowest is not None:
        panel.min(figure.lowest)
    for index, (legend, expression) in enumerate(figure.series):
        panel.with_target(prometheus.Dataquery().ref_id(chr(65 + index)).expr(expression).legend_format(legend).range())
    if figure.kind == "stack":
        panel.fill_opacity(40).stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    dashes = DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [10, 10]})
    unstacked = DynamicConfigValue("custom.stacking", {"mode": "none"})
    flat = DynamicConfigValue("custom.fillOpacity", 0)
    return panel.override_by_name("objective", [dashes, unstacked, flat])


def _heat_map(figure: Figure) -> heatmap.Panel:
    panel = heatmap.Panel().title(figure.title).description(figure.about).datasource(DATASOURCE)
    panel.span(WIDTH).height(HEIGHT).calculate(False).y_axis(heatmap.YAxisConfig().unit(figure.unit))
    for legend, expression in figure.series:
        query = prometheus.Dataquery().expr(expression).legend_format(legend).format(PromQueryFormat.HEATMAP).range()
        panel.with_target(query)
    return panel


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print("usage: make_dashboard.py FILE, as in deploy/grafana/dashboard.json", file=sys.stderr)
        sys.exit(2)
    Path(sys.argv[1]).write_text(dashboard_json())
