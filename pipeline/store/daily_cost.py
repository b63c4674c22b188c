"""Disk space used per day: measured in the run folder, or estimated where it holds too little.

In: a configuration and its run folder.  Out: a line of text that states its basis.
"""

import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.models import Config
from pipeline.errors import StoreError
from pipeline.store.clips import VIDEO
from pipeline.store.retention import DAY_NS
from pipeline.store.schema import failures, live_bytes, open_readonly
from pipeline.store.statements import ACTIVITY

MEASURED_DAYS = 7.0  # the newest ones
MIN_DAYS = 0.25  # a shorter time is not representative of a day
ALERTS_PER_DAY = 50  # estimate per camera
ALERT_BYTES = 5_000  # in the store, with its four events and its track
EVENTS_FILE_BYTES = 3_000  # its four lines in events.jsonl
SNAPSHOT_BYTES = 100_000  # at 640x512 pixels; about 400,000 at 1920x1080
CLIP_BYTES_S = 500_000  # H.264 of 4 Mbit/s, as usual at 1920x1080
ALERT_S = 10  # from first detection to end


@dataclass(frozen=True)
class Measured:
    """Disk space used in the last days of a run folder."""

    days: float
    alerts: int
    daily_bytes: float


def describe_cost(config: Config) -> str:
    """Describe the disk space used per day and after `retention.days`, and the basis of the figures."""
    measured = _measure(config)
    if measured is not None:
        daily_bytes = measured.daily_bytes
        basis = f"measured in {config.run_dir}: {measured.alerts} alerts in the last {measured.days:.1f} days"
    else:
        recorded = len(config.cameras) if config.recording.enabled else 0
        clip_bytes = _clip_bytes(config)
        daily_bytes = ALERTS_PER_DAY * (
            len(config.cameras) * (ALERT_BYTES + EVENTS_FILE_BYTES + SNAPSHOT_BYTES) + recorded * clip_bytes
        )
        basis = (
            f"estimate: {ALERTS_PER_DAY} alerts per camera, each {SNAPSHOT_BYTES // 1000} kB of snapshot and "
            f"{(ALERT_BYTES + EVENTS_FILE_BYTES) / 1000:g} kB of events and tracks"
        )
        if recorded:
            basis += f", and {_size(clip_bytes)} of clip at 4 Mbit/s"
    kept_bytes = daily_bytes * config.retention.days
    return f"about {_size(daily_bytes)} per day, {_size(kept_bytes)} in {config.retention.days:g} days ({basis})"


def describe_retention(config: Config) -> str:
    """Describe the limits of retention."""
    limits = config.retention
    free = "2 GB (a tenth of a smaller disk)" if limits.min_free_gb is None else f"{limits.min_free_gb:g} GB"
    return f"{limits.days:g} days, at most {limits.max_gb:g} GB, at least {free} of the disk free; open alerts are kept"


def describe_recording(config: Config) -> str:
    """Describe which alerts have clips, and how long they are."""
    settings = config.recording
    if not settings.enabled:
        return "off"
    return (
        f"a clip of each alert, from {settings.pre_s:g} s before to {settings.post_s:g} s after it, at most "
        f"{settings.max_s:g} s; up to {settings.ring_mb:g} MB of memory per camera"
    )


def _clip_bytes(config: Config) -> float:
    settings = config.recording
    return CLIP_BYTES_S * min(settings.pre_s + ALERT_S + settings.post_s, settings.max_s)


def _measure(config: Config) -> Measured | None:
    """Return None where there is no store, or one that covers too little time."""
    now_ns = time.time_ns()
    since_ns = now_ns - round(MEASURED_DAYS * DAY_NS)
    try:
        with failures(config.store_path), closing(open_readonly(config.store_path)) as connection:
            first_ns, events, recent, line_bytes, alerts = connection.execute(ACTIVITY, (since_ns,)).fetchone()
            store_bytes = live_bytes(connection) * recent / max(1, events)
    except (StoreError, sqlite3.Error):
        return None
    days = (now_ns - max(first_ns or now_ns, since_ns)) / DAY_NS
    if days < MIN_DAYS or not recent:
        return None
    # Some files may have been deleted since.
    files_bytes = alerts * _mean_bytes(config.snapshots_path, "*.jpg", SNAPSHOT_BYTES)
    if config.recording.enabled:
        files_bytes += alerts * _mean_bytes(config.clips_path, f"*{VIDEO}", 0)
    return Measured(days, alerts, (store_bytes + files_bytes + line_bytes) / days)


def _mean_bytes(folder: Path, pattern: str, default_bytes: float) -> float:
    sizes_bytes = [path.stat().st_blocks * 512 for path in folder.glob(pattern)] if folder.is_dir() else []
    return sum(sizes_bytes) / len(sizes_bytes) if sizes_bytes else default_bytes


def _size(size_bytes: float) -> str:
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.1f} MB"
