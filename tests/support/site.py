"""Configurations of small sites."""

from pathlib import Path

import yaml

from support.program import CLIPS


def demo_site(tmp_path: Path) -> Path:
    """The demo's cameras at a rate that a busy machine can follow."""
    path = tmp_path / "site.yaml"
    cameras = [
        {"id": "scene", "uri": "demo:scene?seed=4", "rate_fps": 3},
        {"id": "thermal", "uri": f"demo:clips/{CLIPS}?first=IR_DRONE_015", "band": "infrared", "rate_fps": 5},
    ]
    fixed = {"run_dir": str(tmp_path / "run"), "metrics": {"port": 0}, "console": {"port": 0}}
    path.write_text(yaml.safe_dump({"cameras": cameras, **fixed}))
    return path
