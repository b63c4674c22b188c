"""A simulated site: cameras of one kind, shared out evenly to machines that each capture, segment and track alone."""

from dataclasses import dataclass

import numpy as np

from pipeline.simulation.cameras import LiveCamera
from pipeline.simulation.cores import Machine
from pipeline.simulation.service import Draw, ServiceTimes
from pipeline.simulation.worker import SimulatedWorker

WARM_UP_S = 20.0  # the share of pixels finds its level


@dataclass(frozen=True)
class Site:
    """What is simulated.

    Attributes:
        cameras: of the whole site.
        fps: of each.
        workers: machines.
        cores: of each machine, less what other programs use.
        objective_s: from capture to track.
        share: of pixels that the network processes; None: as the load allows.
        seconds: that are counted.
        seed: of the draws.
    """

    cameras: int
    fps: float
    workers: int = 1
    cores: float = 2.0
    objective_s: float = 0.5
    share: float | None = None
    seconds: float = 30.0
    seed: int = 0


@dataclass(frozen=True)
class Figures:
    """What is expected of the machine that has the most cameras."""

    cameras: int
    workers: int
    captured: int
    dropped: int
    capture_to_track_p50_ms: float
    capture_to_track_p99_ms: float
    share: float
    longest_wait_s: float  # of a place for the network, at the end
    busy: float  # of the machine's cores
    holds: bool  # no frame is dropped, and the 99th percentile is within the objective


def simulate(site: Site, times: ServiceTimes) -> Figures:
    """Return what is expected of a site."""
    machine, draw = Machine(site.cores), Draw(site.seed)
    worker = SimulatedWorker(times, site.objective_s, site.share, machine, draw)
    cameras = [
        LiveCamera(f"cam{number:05}", site.fps, site.objective_s, times, machine, worker, draw)
        for number in range(-(-site.cameras // site.workers))
    ]
    machine.run(WARM_UP_S)
    worker.latencies_s.clear()
    before = [(camera.captured, camera.lost) for camera in cameras]
    busy_s = machine.busy_s
    machine.run(WARM_UP_S + site.seconds)
    captured = sum(camera.captured - count for camera, (count, _) in zip(cameras, before, strict=True))
    dropped = sum(camera.lost - count for camera, (_, count) in zip(cameras, before, strict=True))
    p50_ms, p99_ms = 1e3 * np.percentile(worker.latencies_s or [np.inf], (50, 99))
    return Figures(
        cameras=site.cameras,
        workers=site.workers,
        captured=captured,
        dropped=dropped,
        capture_to_track_p50_ms=round(float(p50_ms), 1),
        capture_to_track_p99_ms=round(float(p99_ms), 1),
        share=round(worker.share, 3),
        longest_wait_s=round(worker.revisit_s, 1),
        busy=round((machine.busy_s - busy_s) / (site.cores * site.seconds), 3),
        holds=bool(not dropped and p99_ms <= 1e3 * site.objective_s),
    )
