"""The summary of a run: what became of every frame."""

import structlog

from pipeline.config.models import Config
from pipeline.errors import StoreError
from pipeline.store import ledger


def log_accounts(config: Config) -> None:
    """Log each camera's account, as its ledger has it."""
    for camera in config.cameras:
        try:
            account = ledger.read(config.ledger_path(camera.id))
        except (OSError, ValueError, StoreError):
            continue
        structlog.get_logger().info(
            "camera closed",
            camera=camera.id,
            captured=account.captured,
            segmented=account.segmented,
            dropped={cause.value: count for cause, count in account.dropped.items() if count},
            failed={cause.value: count for cause, count in account.failed.items() if count},
            blind_s={cause.value: round(ns / 1e9, 1) for cause, ns in account.blind_ns.items() if ns},
        )
