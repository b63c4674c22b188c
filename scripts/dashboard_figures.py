"""The figures of Grafana's dashboard: their PromQL, row by row; `make_dashboard.py` makes panels of them."""

from dataclasses import dataclass
from typing import Literal

HOST = 'instance=~"$instance"'
CAMERA = f'{HOST},camera=~"$camera"'
RATE = "[$__rate_interval]"
OBJECTIVE = ("objective", f"max(dasnet_objective_seconds{{{HOST}}})")


@dataclass(frozen=True)
class Figure:
    """A panel: expressions by the legend of their series."""

    title: str
    about: str
    unit: str
    series: tuple[tuple[str, str], ...]
    lowest: float | None = 0.0
    kind: Literal["lines", "stack", "heat map", "number"] = "lines"  # stack: all series but the objective
    limits: tuple[float, float] | None = None  # of a number: from here on it is orange, and red


def quantile(share: float, metric: str, by: str, selector: str) -> str:
    return f"histogram_quantile({share}, sum by ({by}, le) (rate({metric}_bucket{{{selector}}}{RATE})))"


def number(title: str, about: str, expression: str, limits: tuple[float, float], unit: str = "none") -> Figure:
    return Figure(title, about, unit, (("now", expression),), kind="number", limits=limits)


def total(metric: str, by: str, selector: str = CAMERA) -> str:
    return f"sum by ({by}) (rate({metric}{{{selector}}}{RATE}))"


def quantiles(metric: str, selector: str) -> tuple[tuple[str, str], ...]:
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    return tuple(
        (name, f"histogram_quantile({share}, sum by (le) (rate({metric}_bucket{{{selector}}}{RATE})))")
        for name, share in shares.items()
    )


FOLDED = "Where a site has them: camera clocks, GPU"

_STAGE, _TRACK, _ALERT = (
    f"dasnet_{name}_seconds" for name in ("stage_latency", "capture_to_track", "capture_to_alert")
)
_FRAMES = f"scalar(sum(rate({_TRACK}_count{{{HOST}}}{RATE})))"

ROWS: dict[str, tuple[Figure, ...]] = {
    "Duty": (
        number(
            "Cameras down",
            "Cameras that deliver no frames now.",
            f"count(dasnet_camera_up{{{CAMERA}}} == 0) or vector(0)",
            (1, 2),
        ),
        number(
            "Cameras blind",
            "Cameras blind for half of the last minute, or in half of their view: frozen, covered, not processed.",
            f"count(sum by (camera) (rate(dasnet_blind_seconds_total{{{CAMERA}}}[1m])) > 0.5) or vector(0)",
            (1, 2),
        ),
        number(
            "Alerts unacknowledged",
            "Alerts that wait for an operator, also those whose target is gone.",
            f"sum(dasnet_alerts_unacknowledged{{{CAMERA}}})",
            (1, 5),
        ),
        number(
            "Oldest alarm",
            "Time since the oldest unacknowledged alarm was opened or last escalated.",
            f'max(dasnet_alerts_unacknowledged_age_seconds{{{CAMERA},severity="alarm"}})',
            (1, 30),
            unit="s",
        ),
        number(
            "Sinks behind",
            "Events that a sink has not delivered yet.",
            f"sum(dasnet_sink_backlog{{{HOST}}})",
            (20, 100),
        ),
        number(
            "p95 of the objective",
            "95th percentile from reception to track of the last five minutes, as a share of the objective.",
            f"histogram_quantile(0.95, sum by (le) (rate({_TRACK}_bucket{{{CAMERA}}}[5m]))) / {OBJECTIVE[1]}",
            (0.8, 1.0),
            unit="percentunit",
        ),
    ),
    "Latency": (
        Figure(
            "Capture to track", "From reception of a frame to its tracks.", "s", (*quantiles(_TRACK, CAMERA), OBJECTIVE)
        ),
        Figure("Capture to alert", "From reception of a frame to the stored alert.", "s", quantiles(_ALERT, CAMERA)),
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
            "Build",
            "Version, hash of the checkpoint and engine.",
            "none",
            (("{{instance}} {{version}} {{model}} {{engine}}", f"dasnet_build_info{{{HOST}}}"),),
        ),
    ),
    "Track while scan": (
        Figure(
            "Share processed",
            "Share of each live frame's pixels that the network processes; below 1 where whole frames are too much.",
            "percentunit",
            (("{{instance}}", f"dasnet_network_share{{{HOST}}}"),),
        ),
        Figure(
            "Longest wait for the network",
            "How long the place of the view that has waited longest has waited.",
            "s",
            (("{{camera}}", f"max by (camera) (dasnet_scan_revisit_seconds{{{CAMERA}}})"),),
        ),
        Figure(
            "View not processed in time",
            "Share of the view that has waited for longer than `objective.scan_revisit_s`: blind by `budget`.",
            "percentunit",
            (("{{camera}}", total("dasnet_blind_seconds_total", "camera", f'{CAMERA},cause="budget"')),),
        ),
        Figure(
            "Motion judged",
            "Motion candidates of a frame that are judged at most; fewer where even the least share is too much.",
            "none",
            (("{{instance}}", f"dasnet_judged_motion{{{HOST}}}"),),
        ),
    ),
    FOLDED: (
        Figure(
            "Camera to track",
            "From the camera's timestamp of a frame to its tracks; accurate if the clocks of camera and host agree.",
            "s",
            quantiles("dasnet_camera_to_track_seconds", CAMERA),
        ),
        Figure(
            "Clock offset",
            "Host clock minus camera clock, where the camera sends its time.",
            "s",
            (("{{camera}}", f"max by (camera) (dasnet_clock_offset_seconds{{{CAMERA}}})"),),
            lowest=None,
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
    ),
}
