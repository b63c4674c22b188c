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
from pipeline.store.retention import DAY_NS
from pipeline.store.schema import failures, live_bytes, open_readonly
from pipeline.store.statements import ACTIVITY

MEASURED_DAYS = 7.0  # the newest ones
MIN_DAYS = 0.25  # a shorter time is not representative of a day
ALERTS_PER_DAY = 50  # estimate per camera
ALERT_BYTES = 5_000  # in the store, with its four events and its track
EVENTS_FILE_BYTES = 3_000  # its four lines in events.jsonl
SNAPSHOT_BYTES = 100_000  # at 640x512 pixels; about 400,000 at 1920x1080


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
        daily_bytes = len(config.cameras) * ALERTS_PER_DAY * (ALERT_BYTES + EVENTS_FILE_BYTES + SNAPSHOT_BYTES)
        basis = (
            f"estimate: {ALERTS_PER_DAY} alerts per camera, each {SNAPSHOT_BYTES // 1000} kB of snapshot and "
            f"{(ALERT_BYTES + EVENTS_FILE_BYTES) / 1000:g} kB of events and tracks"
        )
    kept_bytes = daily_bytes * config.retention.days
    return f"about {_size(daily_bytes)} per day, {_size(kept_bytes)} in {config.retention.days:g} days ({basis})"


def describe_retention(config: Config) -> str:
    """Describe the limits of retention."""
    limits = config.retention
    free = "2 GB (a tenth of a smaller disk)" if limits.min_free_gb is None else f"{limits.min_free_gb:g} GB"
    return f"{limits.days:g} days, at most {limits.max_gb:g} GB, at least {free} of the disk free; open alerts are kept"


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
    snapshots_bytes = alerts * _mean_bytes(config.snapshots_path)  # some may have been deleted since
    return Measured(days, alerts, (store_bytes + snapshots_bytes + line_bytes) / days)


def _mean_bytes(folder: Path) -> float:
    sizes_bytes = [path.stat().st_blocks * 512 for path in folder.glob("*.jpg")] if folder.is_dir() else []
    return sum(sizes_bytes) / len(sizes_bytes) if sizes_bytes else SNAPSHOT_BYTES


def _size(size_bytes: float) -> str:
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.1f} MB"
