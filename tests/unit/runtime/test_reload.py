"""Passing the configuration to the workers, and reloading it while the program runs."""

import fcntl
import json
import os
import pickle
import pty
import random
import signal
import subprocess
import sys
import termios
import urllib.request
from pathlib import Path

import pytest
import yaml
import zmq
from prometheus_client import CollectorRegistry
from support.events import OPENED, event, track
from support.program import CLIPS, DASNET, Running, dasnet_in_process, die_with_parent, free_port
from support.sapient import Middleware, needs_sapient

from pipeline.config.file import load
from pipeline.config.models import Config
from pipeline.errors import ConfigError
from pipeline.runtime.control import Applied, Finished, SupervisorEnd
from pipeline.runtime.reload import Requests, change
from pipeline.store import ledger
from pipeline.telemetry.host import HostMetricsCollector
from pipeline.telemetry.metrics import TrackingMetrics, families
from pipeline.transport.wire import Heartbeat

PASSWORD = "s3cret-canary"
DRONE = CLIPS / "IR_DRONE_015.mp4"
ELSEWHERE = {"id": "north", "uri": "rtsp://viewer:${CAM_PASSWORD}@192.0.2.10/stream"}


def camera(name: str, **settings: object) -> dict[str, object]:
    return {"id": name, "uri": f"demo:clips/{DRONE}", "band": "infrared", "rate_fps": 2, **settings}


def write(tmp_path: Path, cameras: list[dict[str, object]], **sections: object) -> Path:
    ports = {"metrics": {"port": 0}, "console": {"port": 0}}
    content = {"cameras": cameras, "run_dir": str(tmp_path / "run"), **ports, **sections}
    path = tmp_path / "site.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def loaded(tmp_path: Path, cameras: list[dict[str, object]], **sections: object) -> Config:
    return load(write(tmp_path, cameras, **sections))


def test_which_changes_a_reload_applies_and_which_it_reports(tmp_path: Path):
    before = loaded(tmp_path, [camera("a"), camera("b"), camera("c")])
    after = loaded(
        tmp_path,
        [camera("d"), camera("c", rate_fps=3), camera("a")],
        model={"threshold": 0.7},
        objective={"capture_to_track_ms": 90},
        sinks=[],
    )
    done = change(before, after)
    assert (done.added, done.removed, done.changed) == (["d"], ["b"], ["c"])
    assert done.config.cameras == after.cameras and done.config.model == before.model
    assert done.lines == [
        "cameras added: d",
        "cameras removed: b",
        "cameras changed: c",
        "cannot be changed by reload, restart to apply: model.threshold, objective.capture_to_track_ms, sinks",
    ]
    assert change(before, before).lines == ["nothing has changed"]
    gate = {"gate": [[0, 0], [9, 0], [9, 9]]}
    zoned = loaded(
        tmp_path,
        [camera("a", zones=gate), camera("b"), camera("c", rate_fps=5, zones=gate)],
        rules=[{"name": "gate", "zones": ["gate"]}],
    )
    done = change(before, zoned)
    assert done.lines == ["cameras changed: c", "zones changed: a", "rules changed"]
    assert done.config.rules == zoned.rules and done.rezoned == ["a"]
    away = loaded(tmp_path, [camera("a", host="edge")], link={"host": "127.0.0.1", "encrypted": False})
    with pytest.raises(ConfigError, match="camera 'a' is on host 'edge', and link cannot be changed by reload"):
        change(before, away)


def test_secrets_of_former_and_current_cameras_stay_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CAM_PASSWORD", "before-1")
    before = loaded(tmp_path, [ELSEWHERE, {"id": "plain", "uri": "rtsp://u:literal-2@192.0.2.11/"}])
    monkeypatch.setenv("CAM_PASSWORD", "after-3")
    after = change(before, loaded(tmp_path, [camera("a"), ELSEWHERE])).config
    assert after.redactor("before-1 literal-2 after-3") == "*** *** ***"
    assert after.references == {"cameras[1].uri": ELSEWHERE["uri"]}


WORKER = """
import json, os, sys, threading, time
from pipeline.runtime.control import Control
control, ended = Control.inherited(), threading.Event()
def show(config):
    hidden = config.redactor(config.cameras[0].uri)
    print(json.dumps([control.run, len(config.cameras), hidden, config.references]), flush=True)
assert sys.stdin.read() == ""
show(control.config)
control.follow(ended.set)
input_ = os.fdopen(int(sys.argv[1]))
input_.readline()
changed = False
while not changed:  # the configuration may still be under way
    for config in control.changes():
        show(config)
        changed = True
    time.sleep(0.01)
control.finished(broken=True)
assert ended.wait(30)
"""


def test_a_worker_receives_the_configuration_as_it_was_read_of_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CAM_PASSWORD", PASSWORD)
    polygon = [[float(x), float(x * x % 509)] for x in range(3000)]
    config = loaded(tmp_path, [ELSEWHERE, *(camera(f"cam{number}", ignore=[polygon]) for number in range(10))])
    assert len(pickle.dumps(config)) > 400_000  # more than a socket buffers
    (tmp_path / "site.yaml").write_text("cameras: [{id:")  # the file is not read again
    monkeypatch.delenv("CAM_PASSWORD")
    end, (read_end, write_end) = SupervisorEnd(), os.pipe()
    end.hand_over("run1", 1, config)
    command = [sys.executable, "-c", WORKER, str(read_end)]
    with end.worker_end as worker_end:
        worker = subprocess.Popen(
            command, stdin=worker_end.fileno(), stdout=subprocess.PIPE, text=True, pass_fds=(read_end,)
        )
    with worker, os.fdopen(write_end, "w") as go_on:
        assert worker.stdout is not None
        shown, references = "rtsp://***@192.0.2.10/stream", {"cameras[0].uri": ELSEWHERE["uri"]}
        assert json.loads(worker.stdout.readline()) == ["run1", 11, shown, references]
        assert PASSWORD.encode() not in Path(f"/proc/{worker.pid}/environ").read_bytes()
        end.hand_over("run1", 2, config.model_copy(update={"cameras": config.cameras[:1]}))
        assert list(end.received()) == []  # not applied yet
        go_on.write("\n")
        go_on.flush()
        assert json.loads(worker.stdout.readline())[:2] == ["run1", 1]
        messages: list[object] = []
        while len(messages) < 2:
            messages += end.received()
        assert messages == [Applied(2), Finished(True)]
        end.close()  # the worker notices
        assert worker.wait(30) == 0
    os.close(read_end)


def test_the_log_hides_secrets_that_a_reload_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CAM_PASSWORD", PASSWORD)
    write(tmp_path, [ELSEWHERE])
    code = (
        "import sys, structlog; from pathlib import Path\n"
        "from pipeline.runtime import logs; from pipeline.config.file import load\n"
        "before, after = load(Path(sys.argv[1])), load(Path(sys.argv[2]))\n"
        "logs.configure(before, 'test')\n"
        f"structlog.get_logger().info('camera lost', reason='{PASSWORD} is wrong')"
    )
    after = write(tmp_path, [ELSEWHERE]).rename(tmp_path / "after.yaml")
    before = write(tmp_path, [camera("a")])
    done = subprocess.run([sys.executable, "-c", code, before, after], capture_output=True, text=True, timeout=60)
    assert "*** is wrong" in done.stderr
    assert "*** is wrong" in (tmp_path / "run" / "dasnet.log").read_text()


def test_metrics_of_removed_cameras_are_removed_and_all_others_kept(tmp_path: Path):
    before = loaded(tmp_path, [camera("a"), camera("b")])
    host, registry = HostMetricsCollector(before, ["tracking", "capture-a", "capture-b"]), CollectorRegistry()
    registry.register(host)
    metrics = TrackingMetrics(["a", "b"], 0.5)

    def beat(started_ns: int) -> None:
        host.receive(Heartbeat("tracking", 1, started_ns, families(metrics.registry)))

    def shown() -> dict[str, float]:
        return {
            f"{sample.name} {sample.labels}": sample.value for family in registry.collect() for sample in family.samples
        }

    def count() -> None:
        for name in ("a", "b"):
            metrics.alerts.count(event(OPENED, track(1), camera=name))
            metrics.distractors.labels(name, "bird").inc()
            metrics.capture_to_track.labels(name).observe(0.1)

    count()
    beat(1)
    metrics = TrackingMetrics(["a", "b"], 0.5)  # of a replaced worker: the counts of the first are kept
    count()
    beat(2)
    assert sum("'camera': 'b'" in key for key in shown()) > 10
    kept = {key: value for key, value in shown().items() if "'camera': 'a'" in key}
    with ledger.Ledger(before.ledger_path("b"), credits=1):
        assert any("dasnet_credits {'camera': 'b'}" in key for key in shown())
        after = change(before, loaded(tmp_path, [camera("a"), camera("c")])).config
        metrics.watch(frozenset({"a", "c"}))
        host.watch(after, ["tracking", "capture-a", "capture-c"])
        for _ in range(2):  # before the next heartbeat, and after it
            assert not any("'b'" in key or "capture-b" in key for key in shown())
            assert kept == {key: value for key, value in shown().items() if "'camera': 'a'" in key}
            beat(2)
    assert shown()["dasnet_alerts_total {'camera': 'c', 'severity': 'alarm'}"] == 0
    assert shown()["dasnet_worker_up {'worker': 'capture-c'}"] == 0
    assert "worker capture-c: is down" in host.not_ready()
    host.receive(Heartbeat("capture-c", 2, 3, {}))
    host.finished("capture-c")
    host.expect("capture-c")
    assert shown()["dasnet_worker_up {'worker': 'capture-c'}"] == 0


def reload(config: Path) -> tuple[int, list[str]]:
    done = dasnet_in_process("reload", config)
    return done.returncode, (done.stdout + done.stderr).splitlines()


def workers(program: Running) -> dict[str, int]:
    found = {}
    for pid, command in program.children().items():
        words = command.split()
        if "worker" in words:
            found[words[words.index("worker") + 1 :][2 if "--camera" in words else 0]] = pid
    return found


def counters(metrics: dict[str, float], camera: str) -> dict[str, float]:
    endings = ("_total", "_count", "_bucket")
    return {
        key: value
        for key, value in metrics.items()
        if f'camera="{camera}"' in key and key.partition("{")[0].endswith(endings)
    }


def test_garbage_and_unknown_clients_do_not_block_the_reload_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    before, path = signal.getsignal(signal.SIGHUP), tmp_path / "site.yaml"
    rng = random.Random(3)
    with Requests(path) as requests, zmq.Context() as context, context.socket(zmq.DEALER) as client:
        client.connect(f"ipc://{tmp_path}/reload.sock")
        for _ in range(200):
            client.send_multipart([rng.randbytes(rng.randrange(40)) for _ in range(rng.randrange(1, 4))])
        client.send_multipart([b"", b"/other.yaml\0"])
        client.send_multipart([b"", os.fsencode(path)])
        while not requests.due():
            pass
        requests.reject("the reason")
        answers = []
        while not answers or b"the reason" not in answers[-1]:
            assert client.poll(5000)
            answers.append(client.recv_multipart()[-1])
        assert sum(b"in this folder runs" in answer for answer in answers) >= 1
    signal.signal(signal.SIGHUP, before)


@pytest.mark.live
def test_an_invalid_file_is_refused_and_the_site_continues(tmp_path: Path):
    config = write(tmp_path, [camera("a")])
    good = config.read_text()
    with Running("run", config) as program:
        program.wait_for_metric('dasnet_frames_segmented_total{camera="a"}', 1)
        before = workers(program)
        for text, message in [
            (good[: good.index("id:")], "cameras[0]"),
            (good.replace("rate_fps", "rate"), "cameras[0].rate: unknown key"),
            ("", "must be a mapping with at least the key 'cameras'"),
            (good.replace("uri: demo", "uri: ${CAM_PASSWORD}"), "environment variable CAM_PASSWORD is not set"),
            (good.replace("id: a", "id: b\n  calibration: none.json"), "cameras[0].calibration: "),
            (good.replace("id: a", "id: b").replace("demo:", "file:/none/"), "cameras[0].uri: "),
        ]:
            config.write_text(text)
            code, lines = reload(config)
            assert code == 2 and len(lines) == 1 and message in lines[0], lines
            program.process.send_signal(signal.SIGHUP)
            program.wait_for_line(f"configuration rejected.*{message.replace('[', '.').replace(']', '.')}")
        os.kill(before["a"], signal.SIGKILL)
        program.wait_for_metric('dasnet_worker_restarts_total{worker="capture-a"}', 1)
        counted = program.metrics()['dasnet_frames_segmented_total{camera="a"}']
        program.wait_for_metric('dasnet_frames_segmented_total{camera="a"}', counted + 2)  # with the invalid file
        other = tmp_path / "other.yaml"
        other.write_text(good)
        code, lines = reload(other)
        assert code == 2 and f"expected {config}, with which the program in this folder runs" in lines[0]
        config.write_text(good)
        assert reload(config) == (0, ["nothing has changed"])
        assert program.stop() == 0
    code, lines = reload(config)
    assert code == 1 and "no program runs in this folder" in lines[0]


@needs_sapient
@pytest.mark.live
def test_cameras_are_added_and_removed_without_lost_frames_on_others(tmp_path: Path):
    with Middleware() as middleware:
        _add_and_remove(tmp_path, middleware)


def _add_and_remove(tmp_path: Path, middleware: Middleware) -> None:
    sinks = [{"type": "sapient", "url": f"tcp://127.0.0.1:{middleware.port}"}]
    config = write(tmp_path, [camera("a"), camera("b")], sinks=sinks)
    with Running("run", config) as program:
        console = program.wait_for_line(r"console: (http\S+)/")[1]
        for name in ("a", "b"):
            program.wait_for_metric(f'dasnet_frames_segmented_total{{camera="{name}"}}', 2)
        before, counted = workers(program), counters(program.metrics(), "a")

        write(tmp_path, [camera("a"), camera("b"), camera("c")], sinks=sinks)
        assert reload(config) == (0, ["cameras added: c"])
        program.wait_for_metric('dasnet_frames_segmented_total{camera="c"}', 2)
        program.wait_for_line("camera.up .*camera=c")

        write(tmp_path, [camera("a"), camera("c", region=[0, 0, 200, 200])], console={"port": free_port()}, sinks=sinks)
        program.process.send_signal(signal.SIGHUP)
        program.wait_for_line("configuration reloaded .*restart to apply: console.port")
        program.wait_for_line("configuration reloaded .*cameras removed: b")
        program.wait_for_line("configuration reloaded .*cameras changed: c")
        metrics = program.metrics()
        assert not [key for key in metrics if 'camera="b"' in key or "capture-b" in key]
        seen = metrics['dasnet_frames_segmented_total{camera="c"}']
        program.wait_for_metric('dasnet_frames_segmented_total{camera="c"}', seen + 2)
        with urllib.request.urlopen(f"{console}/api/v1/cameras", timeout=5) as answer:
            assert [each["id"] for each in json.load(answer)["cameras"]] == ["a", "c"]
        metrics = program.metrics()
        assert not [key for key in metrics if 'camera="b"' in key or "capture-b" in key]

        after = workers(program)
        assert {name: after[name] for name in before if name != "b"} == {
            name: pid for name, pid in before.items() if name != "b"
        }
        assert "b" not in after and set(after) == {"segmentation", "tracking", "console", "a", "c"}
        now = counters(metrics, "a")
        assert all(now[key] >= value for key, value in counted.items())
        lost = [key for key in now if "dropped" in key or "failed" in key]
        lost.remove('dasnet_frames_dropped_total{camera="a",cause="overload"}')  # depends on the speed of the machine
        assert {key: now[key] for key in lost} == {key: counted[key] for key in lost}
        assert not [line for line in program.lines if "message rejected" in line or "worker ended" in line]
        assert program.stop() == 0
        registered = [each.registration.short_name for each in middleware.of("registration")]
        assert sorted(registered) == ["a", "b", "c"] and middleware.goodbyes() == 3 and not middleware.faults
        assert ledger.read(tmp_path / "run" / "ledgers" / "a.ledger").balanced
        assert ledger.read(tmp_path / "run" / "ledgers" / "b.ledger").balanced


@pytest.mark.slow
@pytest.mark.live
def test_closing_the_terminal_ends_the_program_though_sighup_reloads(tmp_path: Path):
    config = write(tmp_path, [camera("a")])
    terminal, end = pty.openpty()
    program = subprocess.Popen(
        [*DASNET, "run", config],
        **dict.fromkeys(("stdin", "stdout", "stderr"), end),
        start_new_session=True,
        preexec_fn=lambda: (die_with_parent(), fcntl.ioctl(0, termios.TIOCSCTTY, 0)),
    )
    os.close(end)
    shown = b""
    while b"camera.up" not in shown:
        shown += os.read(terminal, 1000)
    program.send_signal(signal.SIGHUP)  # a reload
    while b"nothing has changed" not in shown:
        shown += os.read(terminal, 1000)
    os.close(terminal)
    assert program.wait(30) >= 0, "in order, not by the signal"
    assert not (tmp_path / "run" / "metrics.address").exists()
