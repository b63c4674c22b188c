"""An environment of its own for the trackers and metrics that ours is compared with.

Both packages ask for `opencv-python`, which breaks `opencv-python-headless` where they are installed together.
"""

import subprocess
from importlib.util import find_spec
from pathlib import Path

from training.evaluation.separate_environment import SeparateEnvironment

ENVIRONMENT = SeparateEnvironment(
    Path("out/tracker_environment"),
    (
        "trackers==2.6.1",
        "trackeval==1.3.0",
        "supervision==0.31.2",
        "pydeprecate==0.14.0",
        "defusedxml==0.7.1",
        "requests==2.34.2",
        "urllib3==2.8.0",
        "idna==3.20",
        "certifi==2026.10.19.post1",
        "charset-normalizer==3.5.3",
    ),
)


def is_installed() -> bool:
    """Return whether this process runs where the trackers are installed."""
    return find_spec("trackers") is not None and find_spec("trackeval") is not None


def run_inside(module: str, arguments: list[str]) -> int:
    """Run a module in the environment, which is made or brought up to date first, and return its exit code."""
    return subprocess.run([ENVIRONMENT.python(), "-m", module, *arguments], check=False).returncode
