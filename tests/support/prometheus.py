"""A real Prometheus beside the program."""

import json
import re
import shutil
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from support.program import REPOSITORY

DEPLOY = REPOSITORY / "deploy"


RULES = DEPLOY / "prometheus"


needs_prometheus = pytest.mark.skipif(
    not (shutil.which("promtool") and shutil.which("amtool")),
    reason="needs Debian's prometheus and prometheus-alertmanager: sh scripts/system_packages.sh",
)


class Prometheus:
    """What it answers."""

    def __init__(self, address: str) -> None:
        self._address = address

    def query(self, expression: str) -> list[Any]:
        """The series that have a value now; what is no number is none."""
        return [series for series in self._get("query", query=expression)["result"] if series["value"][1] != "NaN"]

    def firing(self) -> set[tuple[str, str]]:
        """Alerts, and their workers."""
        alerts = self._get("alerts")["alerts"]
        return {(a["labels"]["alertname"], a["labels"].get("worker", "")) for a in alerts if a["state"] == "firing"}

    def _get(self, what: str, **parameters: str) -> Any:
        with urllib.request.urlopen(f"{self._address}/api/v1/{what}?{urlencode(parameters)}", timeout=5) as answer:
            return json.load(answer)["data"]


def until(true: Callable[[], object], timeout_s: float = 40.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            if true():
                return
        except OSError:  # not listening yet
            pass
        assert time.monotonic() < deadline_s, "not in time"
        time.sleep(0.2)  # an HTTP endpoint can only be asked again


def hasty_dashboard(folder: Path, shorter: Mapping[str, str]) -> Path:
    """A copy of `scripts/dashboard.py` whose rules are changed: patterns and what replaces them."""
    rules = folder / "deploy" / "prometheus"
    shutil.copytree(RULES, rules)
    for file in (rules / "alerts.rules.yml", rules / "recording.rules.yml"):
        text = file.read_text()
        for pattern, value in shorter.items():
            text = re.sub(pattern, value, text)
        file.write_text(text)
    script = folder / "scripts" / "dashboard.py"
    script.parent.mkdir()
    return Path(shutil.copy(REPOSITORY / "scripts" / "dashboard.py", script))
