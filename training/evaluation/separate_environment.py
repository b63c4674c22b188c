"""An environment of its own for packages that would break the one that dasnet runs in, or that it does not need.

They are installed without their dependencies, and the environment reads everything else from the one that dasnet runs
in.
"""

import hashlib
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import DasnetError


@dataclass(frozen=True)
class SeparateEnvironment:
    """Packages in a folder, each as `name==version`."""

    folder: Path
    packages: tuple[str, ...]

    def python(self) -> Path:
        """Return the environment's Python; make or update it first.  Raise DasnetError where that fails."""
        python = self.folder / "bin" / "python"
        stamp, state = self.folder / "installed", self._state()
        if stamp.exists() and stamp.read_text() == state:
            return python
        print(f"installing {', '.join(self.packages[:2])} into {self.folder} ...", file=sys.stderr, flush=True)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
        for command in ([sys.executable, "-m", "venv", "--clear", str(self.folder)], [*pip, *self.packages]):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                lines = (done.stderr or done.stdout).strip().splitlines()
                raise DasnetError(f"{self.folder}: cannot be installed: {lines[-1] if lines else 'no reason given'}")
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        packages = self.folder / "lib" / version / "site-packages"
        # addsitedir, not a bare path: an editable installation of dasnet is found by a .pth file of its own.
        (packages / "dasnet.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
        stamp.write_text(state)
        return python

    def _state(self) -> str:
        """Return a digest of what the environment is made from."""
        return hashlib.sha256("\n".join((*self.packages, sys.executable)).encode()).hexdigest()
