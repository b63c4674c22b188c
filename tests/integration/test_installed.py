"""The program as it is installed: it tells systemd how it is, it answers the container's health check, it can be
asked for a support bundle, and nowhere does it show a secret.

One site runs for all tests: one camera that refuses the connection, one that refuses the password, and one that is
tracked.  Their passwords stand in the configuration itself, in the environment, and in a secret file.
"""

import json
import re
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from support.program import CLIPS, REPOSITORY, Running, dasnet, dasnet_in_process, free_port
from support.rtsp import RtspCameras

LITERAL, FROM_ENVIRONMENT, FROM_FILE, IN_QUERY = (
    "canary-1%2Fliteral",
    "canary-2-environ",
    "canary-3-file",
    "canary-4-query",
)
CANARY = b"canary-"  # every secret holds it, however its other characters are written
SITE = """
cameras:
  - {{id: refused, uri: "rtsp://root:{literal}@127.0.0.1:{closed}/s?user=root&pwd={query}"}}
  - {{id: wrong, uri: "rtsp://root:${{CAM_PASSWORD}}@127.0.0.1:{wrong}/stream"}}
  - {{id: served, uri: "rtsp://viewer:${{file:secret}}@127.0.0.1:{served}/stream", band: infrared, rate_fps: 6}}
run_dir: {run_dir}
metrics: {{port: 0}}
console: {{port: 0}}
log: {{format: json}}
"""


def site_text(run_dir: Path, **ports: int) -> str:
    return SITE.format(literal=LITERAL, query=IN_QUERY, run_dir=run_dir, **ports)


@dataclass
class Site:
    path: Path
    run_dir: Path
    metrics: int
    console: str
    program: Running
    systemd: socket.socket


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    (folder / "secret").write_text(FROM_FILE + "\n")
    settings: dict[str, str | int] = {"file": str(CLIPS / "IR_DRONE_015.mp4"), "fps": 15, "user": "viewer"}
    cameras = {"served": {**settings, "password": FROM_FILE}, "wrong": {**settings, "password": "another"}}
    with (
        pytest.MonkeyPatch.context() as environment,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd,
        RtspCameras(cameras) as rtsp,
    ):
        systemd.bind(str(folder / "notify"))
        systemd.settimeout(30)
        environment.setenv("CAM_PASSWORD", FROM_ENVIRONMENT)
        environment.setenv("NOTIFY_SOCKET", str(folder / "notify"))
        closed = free_port()
        path = folder / "site.yaml"
        path.write_text(site_text(folder / "run", closed=closed, **rtsp.ports))
        with Running("run", path) as program:
            program.wait_for_metric('dasnet_tracks_confirmed_total{camera="served"}', 1)
            program.wait_for_line("camera refused.*Connection refused")
            program.wait_for_line("camera wrong.*refuses the user or the password")
            console = program.wait_for_line(r"console: (http\S+)/")[1]
            metrics = int(program.wait_for_line(r"metrics: http://127.0.0.1:(\d+)/metrics")[1])
            yield Site(path, folder / "run", metrics, console, program, systemd)


# --- before the site runs ---


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("cameras:", "cameras: ["),  # not YAML; its errors quote the line
        ("console: {port: 0}", "console: *canary-5"),
        ('"rtsp://', '"rtps://'),
        ('"rtsp://', '"'),
        ("band: infrared", 'band: "${CAM_PASSWORD}"'),
        ("band: infrared", "password: canary-5"),
        ("console: {port: 0}", 'console: {port: "${file:secret}"}'),
        ("${file:secret}", "${file:canary}"),
        ("log:", "model: {checkpoint: none.pth}\nlog:"),
    ],
)
def test_no_secret_in_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, right: str, wrong: str):
    monkeypatch.setenv("CAM_PASSWORD", FROM_ENVIRONMENT)
    (tmp_path / "secret").write_text(FROM_FILE)
    text = site_text(tmp_path / "run", closed=9, wrong=9, served=9)
    assert right in text
    path = tmp_path / "site.yaml"
    path.write_text(text.replace(right, wrong))
    for command in ("check", "run") if "checkpoint" in wrong else ("check",):
        ended = dasnet(command, path)
        assert ended.returncode == 2 and str(tmp_path) in ended.stderr and "Traceback" not in ended.stderr
        assert CANARY.decode() not in ended.stdout + ended.stderr, ended.stderr


def test_a_support_bundle_is_made_where_nothing_ran(tmp_path: Path):
    path = tmp_path / "site.yaml"
    path.write_text(
        f"cameras: [{{id: a, uri: 'demo:scene'}}]\nrun_dir: {tmp_path}/run\nmetrics: {{port: {free_port()}}}\n"
    )
    ended = dasnet_in_process("support-bundle", "--out", tmp_path / "support.zip", path)
    assert ended.returncode == 0, ended.stderr
    with zipfile.ZipFile(tmp_path / "support.zip") as bundle:
        missing = bundle.read("missing.txt").decode()
        assert {"doctor.txt", "config.yaml", "ledgers.json"} <= set(bundle.namelist())
    assert "metrics.txt: DasnetError: dasnet is not running" in missing and "events.jsonl: StoreError" in missing
    refused = dasnet_in_process("support-bundle", "--out", "/proc/support.zip", path)
    assert refused.returncode == 1 and "error: /proc/support.zip: cannot be written" in refused.stderr


# --- while it runs ---


def test_systemd_hears_that_it_is_ready_and_alive(site: Site):
    heard: set[bytes] = set()
    while b"READY=1" not in heard:  # or a time-out; until it is read, the queue is full of signs of life
        heard.add(site.systemd.recv(100))
    assert heard == {b"READY=1", b"WATCHDOG=1"}


def test_the_container_s_health_check_tells_a_living_program_from_a_dead_one(site: Site):
    text = (REPOSITORY / "deploy" / "Containerfile").read_text()
    match = re.search(r"HEALTHCHECK [^\[]*CMD (\[.*\])", text)
    assert match
    _, *arguments = json.loads(match[1])
    for port, code in ((site.metrics, 0), (free_port(), 1)):
        command = [argument.replace(":9464/", f":{port}/") for argument in arguments]
        assert command != arguments
        assert subprocess.run([sys.executable, *command], capture_output=True, timeout=30).returncode == code


def test_the_console_finds_the_metrics_at_whatever_port_they_are(site: Site):
    for _ in range(60):  # asked for every few seconds
        report = httpx.get(f"{site.console}/api/v1/latency", params={"window": "10m"}).json()
        if report["error"] is None and report["end_to_end"][0]["count"]:
            break
        time.sleep(0.5)
    assert report["error"] is None and report["end_to_end"][0]["p95_s"] > 0


def test_no_secret_in_what_the_program_says_and_writes(site: Site):
    assert CANARY not in "\n".join(site.program.lines).encode()
    written = [path for path in site.run_dir.rglob("*") if path.is_file()]
    assert {"dasnet.log", "store.sqlite", "events.jsonl"} <= {path.name for path in written}
    assert [path for path in written if CANARY in path.read_bytes()] == []
    said = [json.loads(line) for line in (site.run_dir / "dasnet.log").read_text().splitlines()]
    assert {"camera lost", "track.confirmed"} <= {entry["event"] for entry in said}


def test_no_secret_in_metrics_and_console(site: Site):
    addresses = [f"http://127.0.0.1:{site.metrics}/metrics"] + [
        site.console + path
        for path in ("/", "/healthz", "/api/v1/cameras", "/api/v1/alerts", "/api/v1/events", "/api/v1/tracks", "/none")
    ]
    answers = {address: httpx.get(address).text for address in addresses}
    with httpx.stream("GET", f"{site.console}/api/v1/live") as stream:
        lines = stream.iter_lines()
        answers["live"] = "\n".join(next(lines) for _ in range(30))
    assert '"uri":"rtsp://127.0.0.1:' in answers[f"{site.console}/api/v1/cameras"]
    assert [address for address, text in answers.items() if CANARY in text.encode()] == []


def test_no_secret_in_the_process_list(site: Site):
    processes = site.program.children()
    assert len(processes) == 7, processes
    for pid, command in processes.items():
        assert "canary-" not in command
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        holding = [entry for entry in environment if CANARY in entry]
        assert holding == [f"CAM_PASSWORD={FROM_ENVIRONMENT}".encode()], command
        assert pid == site.program.process.pid or not any(e.startswith(b"NOTIFY_SOCKET") for e in environment)


def test_check_shows_no_secret(site: Site):
    ended = dasnet("check", site.path)
    assert ended.returncode == 0 and "camera wrong: visible, rtsp://127.0.0.1" in ended.stdout
    assert CANARY.decode() not in ended.stdout + ended.stderr


def test_the_support_bundle_holds_everything_but_secrets(site: Site, tmp_path: Path):
    (site.run_dir / "dasnet.log.1").write_text(f"an older log with {FROM_FILE} and {LITERAL}\n" * 100_000)
    out = tmp_path / "new" / "support.zip"
    ended = dasnet("support-bundle", "--out", out, site.path)
    (site.run_dir / "dasnet.log.1").unlink()
    assert ended.returncode == 0, ended.stderr
    assert CANARY.decode() not in ended.stdout + ended.stderr
    with zipfile.ZipFile(out) as bundle:
        parts = {name: bundle.read(name) for name in bundle.namelist()}
    assert [name for name, data in parts.items() if CANARY in data] == []
    assert all(len(data) <= 4_000_000 for data in parts.values())
    assert out.stat().st_mode & 0o777 == 0o600
    assert parts["missing.txt"] == b"" and "not in it" not in ended.stdout
    assert b"uri: rtsp://127.0.0.1" in parts["config.yaml"] and b"band: infrared" in parts["config-with-defaults.yaml"]
    assert b"dasnet_frames_captured_total" in parts["metrics.txt"]
    assert json.loads(parts["ledgers.json"])["served"]["captured"] > 0
    assert any(json.loads(line)["kind"] == "track.confirmed" for line in parts["events.jsonl"].splitlines())
    assert "torch" in json.loads(parts["versions.json"])["packages"]
    assert b"engine on the CPU" in parts["doctor.txt"] and b"camera served" in parts["check.txt"]
    assert b"camera lost" in parts["log/dasnet.log"] and b"an older log with ***" in parts["log/dasnet.log.1"]
