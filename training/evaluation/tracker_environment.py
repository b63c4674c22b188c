"""An environment of its own for the trackers and metrics that ours is compared with.

Both packages ask for `opencv-python`, which breaks `opencv-python-headless` where they are installed together: they are
installed without their dependencies, and the environment reads everything else from the one that dasnet runs in.
"""

import hashlib
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

from pipeline.errors import DasnetError

ENVIRONMENT = Path("out/tracker_environment")
PACKAGES = (
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
)


def is_installed() -> bool:
    """Return whether this process runs where the trackers are installed."""
    return find_spec("trackers") is not None and find_spec("trackeval") is not None


def run_inside(module: str, arguments: list[str]) -> int:
    """Run a module in the environment, which is made or brought up to date first, and return its exit code."""
    python = _environment()
    return subprocess.run([python, "-m", module, *arguments], check=False).returncode


def _environment() -> Path:
    python = ENVIRONMENT / "bin" / "python"
    stamp, state = ENVIRONMENT / "installed", _state()
    if stamp.exists() and stamp.read_text() == state:
        return python
    print(f"installing {PACKAGES[0]} and {PACKAGES[1]} into {ENVIRONMENT} ...", file=sys.stderr, flush=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps", *PACKAGES]
    for command in ([sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT)], pip):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = (done.stderr or done.stdout).strip().splitlines()
            raise DasnetError(f"{ENVIRONMENT}: cannot be installed: {lines[-1] if lines else 'no reason given'}")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = ENVIRONMENT / "lib" / version / "site-packages"
    # addsitedir, not a bare path: an editable installation of dasnet is found by a .pth file of its own.
    (packages / "dasnet.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    stamp.write_text(state)
    return python


def _state() -> str:
    """Return a digest of what the environment is made from."""
    return hashlib.sha256("\n".join((*PACKAGES, sys.executable)).encode()).hexdigest()
