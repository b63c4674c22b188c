"""`dasnet run`: the real program, real processes, a real RTSP server, until tracks are in the store and in /metrics."""

import json
import os
import select
import shutil
import signal
import sqlite3
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import av
import numpy as np
import pytest
import yaml
import zmq
from support.program import CLIPS, Running, dasnet, dasnet_in_process, shortened
from support.rtsp import RtspCameras

from pipeline.store import ledger
from pipeline.store.reader import StoreReader
from pipeline.transport.wire import Heartbeat, Sample, encode
from pipeline.types import Cause, EventKind, Severity

pytestmark = pytest.mark.live
DRONE = CLIPS / "IR_DRONE_015.mp4"
PASSWORD = "s3cret-canary"


def site(tmp_path: Path, cameras: list[dict[str, object]], **sections: object) -> Path:
    content = {
        "cameras": cameras,
        "run_dir": str(tmp_path / "run"),
        "metrics": {"port": 0},
        "console": {"port": 0},
        **sections,
    }
    path = tmp_path / "site.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def clip_camera() -> dict[str, object]:
    """A camera that shows the drone's clip at a rate that leaves the processor time for the test."""
    return {"id": "cam", "uri": f"demo:clips/{DRONE}", "band": "infrared", "rate_fps": 6}


def confirmed(camera: str) -> str:
    return f'dasnet_tracks_confirmed_total{{camera="{camera}"}}'


def test_an_rtsp_camera_is_tracked_goes_down_comes_back_and_every_frame_is_accounted_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CAM_PASSWORD", PASSWORD)
    ledger_file = tmp_path / "run" / "ledgers" / "north.ledger"
    with RtspCameras({"cam": {"file": str(DRONE), "fps": 15, "user": "viewer", "password": PASSWORD}}) as cameras:
        uri = f"rtsp://viewer:${{CAM_PASSWORD}}@127.0.0.1:{cameras.ports['cam']}/stream"
        config = site(tmp_path, [{"id": "north", "uri": uri, "band": "infrared", "rate_fps": 6}])
        with Running("run", config) as program:
            program.wait_for_metric(confirmed("north"), 1)
            assert program.metrics()['dasnet_camera_up{camera="north"}'] == 1
            cameras.command("down cam")
            program.wait_for_line("camera.down")
            program.wait_for_line("track.lost")
            assert program.metrics()['dasnet_camera_up{camera="north"}'] == 0
            before = program.metrics()[confirmed("north")]
            cameras.command("up cam")
            program.wait_for_metric(confirmed("north"), before + 1)
            assert program.metrics()['dasnet_camera_reconnects_total{camera="north"}'] >= 1
            assert program.metrics()['dasnet_blind_seconds_total{camera="north",cause="offline"}'] > 0

            program.wait_for_metric('dasnet_camera_to_track_seconds_count{camera="north"}', 1)  # by RTCP
            sums = [f'dasnet_{way}_to_track_seconds_sum{{camera="north"}}' for way in ("camera", "capture")]
            metrics = program.metrics()
            assert 0 < metrics[sums[0]] < metrics[sums[1]] + metrics[sums[1].replace("sum", "count")]  # one clock

            accounts = [ledger.read(ledger_file) for _ in range(200)]
            assert all(account.balanced for account in accounts)
            assert PASSWORD not in "\n".join(program.children().values())
            assert program.stop() == 0
        assert PASSWORD not in "\n".join(program.lines)
    account = ledger.read(ledger_file)
    assert account.balanced and account.in_flight == 0 and account.segmented > 0
    events = [stored.event for stored in StoreReader(tmp_path / "run" / "store.sqlite").events(1000)]
    opened = [event for event in events if event.kind is EventKind.TRACK_CONFIRMED]
    assert len(opened) >= 2
    assert all(event.snapshot and (tmp_path / "run" / "snapshots" / event.snapshot).stat().st_size for event in opened)
    lines = (tmp_path / "run" / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [event.id for event in events]


def test_a_recording_gives_the_tracks_of_a_replay_and_the_program_ends_by_itself(tmp_path: Path):
    clip = shortened(DRONE, 60, tmp_path / "clip.mp4")
    config = site(tmp_path, [{"id": "file", "uri": "file:clip.mp4", "band": "infrared"}], run_dir="run")
    result = dasnet("run", config.name, cwd=tmp_path)  # relative paths
    assert result.returncode == 0, result.stderr
    replayed = dasnet_in_process("replay", clip, "--out", tmp_path / "out", "--no-video", "--band", "infrared")
    assert replayed.returncode == 0, replayed.stderr
    live = [stored.event for stored in StoreReader(tmp_path / "run" / "store.sqlite").events(1000)]
    again = [json.loads(line) for line in (tmp_path / "out" / clip.stem / "events.jsonl").read_text().splitlines()]
    assert [(e.kind, e.frame, e.track.id, e.track.label, e.track.hits) for e in live if e.track] == [
        (e["kind"], e["frame"], e["track"]["id"], e["track"]["label"], e["track"]["hits"]) for e in again
    ]
    assert any(event.kind is EventKind.TRACK_CONFIRMED for event in live)
    account = ledger.read(tmp_path / "run" / "ledgers" / "file.ledger")
    assert (
        account.captured
        == account.segmented
        == json.loads((tmp_path / "out" / clip.stem / "summary.json").read_text())["frames"]
    )


@pytest.mark.slow
def test_a_camera_whose_image_freezes_is_reported_blind(tmp_path: Path):
    with av.open(str(tmp_path / "still.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 160, 128, "yuv420p"
        still = np.random.default_rng(1).integers(60, 120, (128, 160, 3), np.uint8)
        for _ in range(20):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(still, format="rgb24")))
        container.mux(stream.encode(None))
    config = site(tmp_path, [{"id": "cam", "uri": f"demo:clips/{tmp_path / 'still.mp4'}", "band": "infrared"}])
    with Running("run", config) as program:
        # Counted from the first frozen frame on, though that is known only seconds later.
        program.wait_for_metric('dasnet_blind_seconds_total{camera="cam",cause="frozen"}', 5)
        program.wait_for_line("camera.blind.*cause=frozen")
        with StoreReader(tmp_path / "run" / "store.sqlite") as reader:
            events = [stored.event for stored in reader.events(10)]
        assert [(event.kind, event.cause, event.severity) for event in sorted(events, key=lambda event: event.id)] == [
            (EventKind.CAMERA_UP, None, Severity.INFO),
            (EventKind.CAMERA_BLIND, Cause.FROZEN, Severity.WARNING),
        ]
        assert program.metrics()['dasnet_camera_up{camera="cam"}'] == 1
        program.wait_for_metric('dasnet_frames_segmented_total{camera="cam"}', 1)  # its frames are still processed
    assert ledger.read(tmp_path / "run" / "ledgers" / "cam.ledger").balanced


def test_killed_workers_are_replaced_and_counters_never_decrease(tmp_path: Path):
    config = site(tmp_path, [clip_camera()])
    with Running("run", config) as program:
        program.wait_for_metric(confirmed("cam"), 1)
        for worker in ("capture", "segmentation", "tracking"):
            before = program.metrics()
            victim = next(pid for pid, command in program.children().items() if f"worker {worker}" in command)
            os.kill(victim, signal.SIGKILL)
            name = f"{worker}-cam" if worker == "capture" else worker
            program.wait_for_metric(f'dasnet_worker_restarts_total{{worker="{name}"}}', 1)
            program.wait_for_metric(
                'dasnet_frames_segmented_total{camera="cam"}', before['dasnet_frames_segmented_total{camera="cam"}'] + 5
            )
            after = program.metrics()
            counters = [key for key in before if key.partition("{")[0].endswith(("_total", "_count", "_bucket"))]
            assert all(after[key] >= before[key] for key in counters)
            assert ledger.read(tmp_path / "run" / "ledgers" / "cam.ledger").balanced
        assert program.stop() == 0


def test_a_failing_store_and_failing_snapshots_stop_nothing(tmp_path: Path):
    run_dir = tmp_path / "run"
    config = site(tmp_path, [clip_camera()])
    with Running("run", config) as program:
        first = program.wait_for_metric(confirmed("cam"), 1)
        shutil.rmtree(run_dir / "snapshots")
        (run_dir / "snapshots").touch()
        with closing(sqlite3.connect(run_dir / "store.sqlite", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            program.wait_for_metric(confirmed("cam"), first + 1, timeout_s=100)
            program.wait_for_metric("dasnet_store_failing{}", 1)
            program.wait_for_line("store failing.*locked")
            program.wait_for_metric("dasnet_events_waiting{}", 1)
            ready = program.wait_for_line(r"metrics: (http\S+)/metrics")[1] + "/readyz"
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(ready, timeout=5)
            assert "store: write failing" in refused.value.read().decode()
            assert (run_dir / "spill.jsonl").stat().st_size
        program.wait_for_line("store recovered")
        program.wait_for_metric('dasnet_snapshots_lost_total{cause="disk"}', 1)
        (run_dir / "new").write_bytes(b"damaged" * 1000)
        (run_dir / "new").replace(run_dir / "store.sqlite")
        program.wait_for_line("damaged store moved aside")
        after = program.metrics()
        program.wait_for_metric(confirmed("cam"), after[confirmed("cam")] + 1, timeout_s=100)
        assert sum(value for name, value in program.metrics().items() if "restarts_total" in name) == 0
        lost = {name: value for name, value in program.metrics().items() if "events_lost" in name and value}
        # What a sink did not have yet is gone with the damaged store, and counted.
        assert lost.keys() <= {'dasnet_events_lost_total{cause="damaged"}'}, lost
        assert program.stop() == 0
    sent = [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]
    assert len({each["id"] for each in sent}) == len(sent)
    opened = len([each for each in sent if each["kind"] == "track.confirmed"])
    logged = len([line for line in program.lines if "track.confirmed" in line])
    assert logged >= 3 and logged - sum(lost.values()) <= opened <= logged


def worker_pid(program: Running, worker: str) -> int:
    return next(pid for pid, command in program.children().items() if f"worker {worker}" in command)


def test_a_worker_that_ends_by_itself_is_replaced_and_down_in_the_metrics_until_then(tmp_path: Path):
    """As with SIGTERM from an operator or an out-of-memory daemon: it exits with 0, unrequested."""
    config = site(tmp_path, [clip_camera()])
    with Running("run", config) as program:
        program.wait_for_metric('dasnet_frames_segmented_total{camera="cam"}', 1)
        for worker, name in [(name, name) for name in ("console", "tracking", "segmentation")] + [
            ("capture", "capture-cam")
        ]:
            up, deadline_s, seen = f'dasnet_worker_up{{worker="{name}"}}', time.monotonic() + 60, [1.0]
            program.wait_for_metric(up, 1)
            os.kill(worker_pid(program, worker), signal.SIGTERM)
            while seen[-2:] != [0, 1] and time.monotonic() < deadline_s:
                value = program.metrics()[up]  # never missing
                seen += [value] if value != seen[-1] else []
                time.sleep(0.05)  # an HTTP endpoint can only be polled
            assert seen == [1, 0, 1], name
            assert program.metrics()[f'dasnet_worker_restarts_total{{worker="{name}"}}'] == 1
        counted = program.metrics()['dasnet_frames_segmented_total{camera="cam"}']
        program.wait_for_metric('dasnet_frames_segmented_total{camera="cam"}', counted + 3)
        assert program.stop() == 0


@pytest.mark.slow
def test_a_recording_whose_worker_is_terminated_is_read_again(tmp_path: Path):
    clip = shortened(DRONE, 40, tmp_path / "clip.mp4")
    config = site(tmp_path, [{"id": "file", "uri": f"file:{clip}", "band": "infrared"}])
    with Running("run", config) as program:
        program.wait_for_metric('dasnet_frames_captured_total{camera="file"}', 1)
        os.kill(worker_pid(program, "capture"), signal.SIGTERM)
        program.wait_for_line("worker ended .*code=0")
        assert program.process.wait(120) == 0
        assert not program.children()
    account = ledger.read(tmp_path / "run" / "ledgers" / "file.ledger")
    assert account.balanced and account.segmented >= 40


def test_heartbeats_of_foreign_processes_are_rejected(tmp_path: Path):
    config = site(tmp_path, [{"id": "cam", "uri": "demo:scene", "rate_fps": 1}])
    with Running("run", config) as program, zmq.Context() as context, context.socket(zmq.PUSH) as orphan:
        program.wait_for_metric('dasnet_worker_up{worker="tracking"}', 1)
        orphan.connect(f"ipc://{tmp_path}/run/heartbeat.sock")
        families = {"dasnet_stray": ("counter", "Text.", [Sample("dasnet_stray_total", {}, 1.0)])}
        for pid, run in ((1, ""), (worker_pid(program, "tracking"), "0123456789abcdef")):
            orphan.send_multipart(encode(Heartbeat("tracking", pid, 1, families, run)))
        program.wait_for_metric('dasnet_messages_refused_total{worker="supervisor"}', 2)
        assert "dasnet_stray_total{}" not in program.metrics()
        program.wait_for_line("message rejected .*heartbeat of process 1 as 'tracking'")


def all_end(processes: Iterable[int], within_s: float = 20) -> bool:
    deadline_s = time.monotonic() + within_s
    for process in processes:
        try:
            descriptor = os.pidfd_open(process)
        except ProcessLookupError:
            continue
        ended = select.select([descriptor], [], [], max(0.0, deadline_s - time.monotonic()))[0]
        os.close(descriptor)
        if not ended:
            return False
    return True


def test_a_supervisor_that_is_killed_leaves_no_orphan(tmp_path: Path):
    config = site(tmp_path, [clip_camera()])
    with Running("run", config) as program:
        program.wait_for_line("camera.up")
        workers = [pid for pid in program.children() if pid != program.process.pid]
        assert len(workers) == 4
        program.process.kill()
        assert all_end(workers), f"left: {program.children()}"


def test_a_supervisor_that_is_killed_while_its_workers_start_leaves_no_orphan(tmp_path: Path):
    cameras = [{"id": f"cam{number}", "uri": "demo:scene", "rate_fps": 1} for number in range(8)]
    config = site(tmp_path, cameras)
    for started in (1, 5, 11):
        with Running("run", config) as program:
            program.wait_for_line("metrics: ")
            while len(workers := [pid for pid in program.children() if pid != program.process.pid]) < started:
                assert program.process.poll() is None
            program.process.kill()
            program.process.wait()
            assert all_end(program.children() | dict.fromkeys(workers)), f"left: {program.children()}"


@pytest.mark.slow
def test_the_next_start_ends_the_workers_of_a_killed_program(tmp_path: Path):
    """A stopped process cannot end by itself, like one that hangs in a driver."""
    config = site(tmp_path, [{"id": "cam", "uri": "demo:scene", "rate_fps": 2}])
    with Running("run", config) as program:
        program.wait_for_line("camera.up")
        orphan = worker_pid(program, "capture")
        others = [pid for pid in program.children() if pid != orphan]
        os.kill(orphan, signal.SIGSTOP)
        program.process.kill()
        program.process.wait()
        assert all_end(others) and list(program.children()) == [orphan]
        with Running("run", config) as second:
            second.wait_for_line(f"ending orphaned worker of an earlier run.*pid={orphan} signal=SIGKILL")
            assert all_end([orphan])
            second.wait_for_metric('dasnet_frames_segmented_total{camera="cam"}', 1)
            assert second.metrics()['dasnet_worker_restarts_total{worker="capture-cam"}'] == 0
            assert second.stop() == 0


def test_a_worker_that_cannot_start_stops_the_program_with_its_reason(tmp_path: Path):
    (tmp_path / "bad.pth").write_bytes(b"no checkpoint")
    camera = clip_camera()
    damaged = dasnet("run", site(tmp_path, [camera], model={"checkpoint": "bad.pth"}))
    assert damaged.returncode == 1 and "bad.pth: is damaged or no checkpoint" in damaged.stderr
    missing = dasnet("run", site(tmp_path, [camera], model={"checkpoint": "none.pth"}))
    assert missing.returncode == 2 and "model.checkpoint: no such file" in missing.stderr


def test_a_second_program_in_a_run_folder_is_refused(tmp_path: Path):
    config = site(tmp_path, [clip_camera()])
    with Running("run", config) as program:
        program.wait_for_line("camera.up")
        second = dasnet("run", config)
        assert second.returncode == 1
        assert "another dasnet runs in this folder" in second.stderr
        assert program.stop(signal.SIGINT) == 0


@pytest.mark.alone
def test_make_run_shows_both_demo_cameras_within_ten_seconds_and_ctrl_c_ends_it(tmp_path: Path):
    demo = yaml.safe_load(Path("configs/demo.yaml").read_text())
    cameras = [{**camera, "uri": camera["uri"].replace("..", str(CLIPS.parents[2]))} for camera in demo["cameras"]]
    config = site(tmp_path, cameras)
    with Running(f"CONFIG={config}", command=["make", "--no-print-directory", "run"]) as program:
        program.wait_for_line(r"^metrics: http://127\.0\.0\.1:\d+/metrics$")
        program.wait_for_line(r"^console: http://127\.0\.0\.1:\d+/$")
        for camera in cameras:
            program.wait_for_metric(confirmed(str(camera["id"])), 1, timeout_s=10)
        os.killpg(program.process.pid, signal.SIGINT)  # as a terminal does on Ctrl-C
        program.stop()
