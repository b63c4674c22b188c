"""A training configuration that is done in seconds, on procedural scenes."""

from pathlib import Path
from typing import Any

STEPS = 8


def tiny_recipe(folder: Path) -> dict[str, Any]:
    return {
        "data": "scene:count=20,size=96x80",
        "steps": STEPS,
        "batch": 2,
        "network": {"name": "dasnet", "start_out_channels": 8, "size": 3},
        "sampling": {"kind": "whole", "size_px": 64},
        "optimizer": {"kind": "sgd", "lr": 0.05},
        "loss": "compound",
        "max_check_samples": 2,
        "check_every_steps": 3,
        "device": "cpu",
        "threads": 1,
        "cache": str(folder / "cache"),
    }
