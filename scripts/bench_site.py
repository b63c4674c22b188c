"""How many live cameras a machine holds: `python3 scripts/bench_site.py --help`; its cameras are those of the tests."""

import os
import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":
    tests = Path(__file__).resolve().parents[1] / "tests"
    path = os.pathsep.join(filter(None, (str(tests), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "endurance.bench_site", *sys.argv[1:]]
    sys.exit(subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False).returncode)
