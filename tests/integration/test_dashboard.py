"""The dashboard, the rules and Prometheus: real ones, on what the real program says."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
import yaml
from support.program import REPOSITORY, Running
from test_metrics import demo_site

DEPLOY = REPOSITORY / "deploy"
RULES = DEPLOY / "prometheus"
DASHBOARD = DEPLOY / "grafana" / "dashboard.json"
# What a site without a GPU, or whose cameras tell no time or show no bird, has no data for.
ALLOWED_EMPTY = {"GPU", "GPU memory", "Camera to track", "Clock offset", "Distractors"}

needs_prometheus = pytest.mark.skipif(
    not (shutil.which("promtool") and shutil.which("amtool")),
    reason="needs Debian's prometheus and prometheus-alertmanager: sh scripts/system_packages.sh",
)


def test_the_committed_dashboard_is_what_the_script_makes(tmp_path: Path):
    made = tmp_path / "dashboard.json"
    script = [sys.executable, REPOSITORY / "scripts" / "make_dashboard.py", made]
    subprocess.run(script, check=True, cwd=REPOSITORY)
    assert made.read_text() == DASHBOARD.read_text(), "run scripts/make_dashboard.py deploy/grafana/dashboard.json"


def panels() -> list[Any]:
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def test_the_dashboard_holds_what_an_operator_looks_for():
    board = json.loads(DASHBOARD.read_text())
    assert [variable["name"] for variable in board["templating"]["list"]] == ["datasource", "instance", "camera"]
    rows = [panel["title"] for panel in board["panels"] if panel["type"] == "row"]
    assert rows == ["Latency", "Cameras", "Detection and alerts", "Resources"]
    assert {panel["title"] for panel in panels()} >= ALLOWED_EMPTY
    assert [panel["title"] for panel in panels() if panel["type"] == "heatmap"] == ["Capture to track, all frames"]
    places = [tuple(panel["gridPos"][side] for side in "xy") for panel in panels()]
    assert len(set(places)) == len(places)


@needs_prometheus
def test_rules_fire_and_clear_as_their_unit_tests_say():
    for command in (
        ["promtool", "check", "config", "prometheus.yml"],
        ["promtool", "test", "rules", "rules.test.yml"],
        ["amtool", "check-config", "alertmanager.yml"],
    ):
        result = subprocess.run(command, cwd=RULES, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
    alerts = {rule["alert"] for rule in yaml.safe_load((RULES / "alerts.rules.yml").read_text())["groups"][0]["rules"]}
    tests = yaml.safe_load((RULES / "rules.test.yml").read_text())["tests"]
    for wanted in (True, False):  # each both fires and is silent
        checked = {c["alertname"] for t in tests for c in t["alert_rule_test"] if bool(c["exp_alerts"]) is wanted}
        assert checked == alerts


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


@needs_prometheus
@pytest.mark.live
def test_every_figure_has_data_and_a_worker_that_hangs_is_reported_and_forgotten(tmp_path: Path):
    script = hasty_dashboard(tmp_path, {r"for: \w+": "for: 1s"})
    with Running(demo_site(tmp_path), command=[sys.executable, str(script)]) as program:
        address = program.wait_for_line(r"^prometheus: (http://127\.0\.0\.1:\d+)/graph")[1]
        assert urlsplit(program.wait_for_line(r"^console: (\S+)$")[1]).hostname == "127.0.0.1"
        prometheus = Prometheus(address)
        program.wait_for_metric('dasnet_tracks_confirmed_total{camera="thermal"}', 1, timeout_s=100)
        until(lambda: prometheus.query("sum(rate(dasnet_capture_to_alert_seconds_count[1m])) > 0"))
        until(lambda: empty_panels(prometheus) <= ALLOWED_EMPTY)  # rates need two scrapes of every worker
        recorded = "max(dasnet:capture_to_track_seconds:p95_5m)"
        until(lambda: prometheus.query(recorded))  # rules are evaluated once a second
        p95_s = float(prometheus.query(recorded)[0]["value"][1])
        assert 0.01 < p95_s < 10

        victim = next(pid for pid, command in program.children().items() if "--camera scene" in command)
        alert = ("DasnetWorkerDown", "capture-scene")
        assert alert not in prometheus.firing()
        os.kill(victim, signal.SIGSTOP)
        until(lambda: alert in prometheus.firing())
        os.kill(victim, signal.SIGCONT)
        until(lambda: alert not in prometheus.firing())
        os.killpg(program.process.pid, signal.SIGINT)  # what a terminal does at Ctrl-C
        assert program.stop() == 0
    assert (tmp_path / "run" / "prometheus" / "data").is_dir()


def empty_panels(prometheus: Prometheus) -> set[str]:
    return {panel["title"] for panel in panels() if not all(map(prometheus.query, expressions(panel)))}


def expressions(panel: Any) -> list[str]:
    """As Grafana would ask: all hosts, all cameras."""
    known = {"$__rate_interval": "1m", "$instance": ".*", "$camera": ".*"}
    texts = [target["expr"] for target in panel["targets"]]
    for name, value in known.items():
        texts = [text.replace(name, value) for text in texts]
    assert not any("$" in text for text in texts)
    return texts
