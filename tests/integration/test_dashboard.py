"""The dashboard, the rules and Prometheus: real ones, on what the real program says."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from support.program import REPOSITORY, Running
from support.prometheus import DEPLOY, RULES, Prometheus, hasty_dashboard, needs_prometheus, until
from support.site import demo_site

DASHBOARD = DEPLOY / "grafana" / "dashboard.json"
# What a site without a GPU, or whose cameras tell no time or show no bird, has no data for.
ALLOWED_EMPTY = {"GPU", "GPU memory", "Camera to track", "Clock offset", "Distractors"}


def test_the_committed_dashboard_is_what_the_script_makes(tmp_path: Path):
    made = tmp_path / "dashboard.json"
    script = [sys.executable, REPOSITORY / "scripts" / "make_dashboard.py", made]
    subprocess.run(script, check=True, cwd=REPOSITORY)
    assert made.read_text() == DASHBOARD.read_text(), "run scripts/make_dashboard.py deploy/grafana/dashboard.json"


def panels() -> list[Any]:
    """All of them, those of folded rows too."""
    top = json.loads(DASHBOARD.read_text())["panels"]
    return [panel for row in top for panel in [row, *row.get("panels", [])] if panel["type"] != "row"]


def test_the_dashboard_holds_what_an_operator_looks_for():
    board = json.loads(DASHBOARD.read_text())
    assert [variable["name"] for variable in board["templating"]["list"]] == ["datasource", "instance", "camera"]
    rows = [panel["title"] for panel in board["panels"] if panel["type"] == "row"]
    assert rows[:6] == ["Duty", "Latency", "Cameras", "Detection and alerts", "Resources", "Track while scan"]
    folded = [panel for panel in board["panels"] if panel.get("collapsed")]
    assert [row["title"] for row in folded] == rows[6:] and len(folded[0]["panels"]) == 4
    duty = [panel for panel in panels() if panel["type"] == "stat"]
    assert len(duty) == 6 and all(len(panel["fieldConfig"]["defaults"]["thresholds"]["steps"]) == 3 for panel in duty)
    assert "Alerts opened" in [each["name"] for each in board["annotations"]["list"]]
    assert {panel["title"] for panel in panels()} >= ALLOWED_EMPTY
    assert [panel["title"] for panel in panels() if panel["type"] == "heatmap"] == ["Capture to track, all frames"]
    places = [tuple(panel["gridPos"][side] for side in "xy") for panel in panels()]
    assert len(set(places)) == len(places)


@pytest.mark.slow
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
