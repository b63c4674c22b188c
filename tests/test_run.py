"""`dasnet run`: the real program, real processes, a real RTSP server, until tracks are in the store and in /metrics."""

import json
import os
import signal
import socket
import threading
from pathlib import Path

import av
import numpy as np
import pytest
import yaml
from program import CLIPS, Running, dasnet, shortened
from rtsp import RtspCameras

from pipeline import ledger
from pipeline.sinks.store import StoreReader
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


def confirmed(camera: str) -> str:
    return f'dasnet_tracks_confirmed_total{{camera="{camera}"}}'


def test_an_rtsp_camera_is_tracked_goes_down_comes_back_and_every_frame_is_accounted_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CAM_PASSWORD", PASSWORD)
    ledger_file = tmp_path / "run" / "ledgers" / "north.ledger"
    with RtspCameras({"cam": {"file": str(DRONE), "fps": 15, "user": "viewer", "password": PASSWORD}}) as cameras:
        uri = f"rtsp://viewer:${{CAM_PASSWORD}}@127.0.0.1:{cameras.ports['cam']}/stream"
        config = site(tmp_path, [{"id": "north", "uri": uri, "band": "infrared"}])
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
            told = program.metrics()
            assert 0 < told[sums[0]] < told[sums[1]] + told[sums[1].replace("sum", "count")]  # one clock: much alike

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
    result = dasnet("run", config.name, cwd=tmp_path)  # all relative, as a person would write it
    assert result.returncode == 0, result.stderr
    replayed = dasnet("replay", clip, "--out", tmp_path / "out", "--no-video", "--band", "infrared")
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


def test_a_camera_whose_picture_freezes_is_said_to_be_blind(tmp_path: Path):
    with av.open(str(tmp_path / "still.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 160, 128, "yuv420p"
        still = np.random.default_rng(1).integers(60, 120, (128, 160, 3), np.uint8)
        for _ in range(20):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(still, format="rgb24")))
        container.mux(stream.encode(None))
    config = site(tmp_path, [{"id": "cam", "uri": f"demo:clips/{tmp_path / 'still.mp4'}", "band": "infrared"}])
    with Running("run", config) as program:
        # Counted from the first still picture on, though it is known to be one seconds later only.
        program.wait_for_metric('dasnet_blind_seconds_total{camera="cam",cause="frozen"}', 5)
        program.wait_for_line("camera.blind.*cause=frozen")
        with StoreReader(tmp_path / "run" / "store.sqlite") as reader:
            events = [stored.event for stored in reader.events(10)]
        assert [(event.kind, event.cause, event.severity) for event in sorted(events, key=lambda event: event.id)] == [
            (EventKind.CAMERA_UP, None, Severity.INFO),
            (EventKind.CAMERA_BLIND, Cause.FROZEN, Severity.WARNING),
        ]
        assert program.metrics()['dasnet_camera_up{camera="cam"}'] == 1
        program.wait_for_metric('dasnet_frames_segmented_total{camera="cam"}', 1)  # it is searched all the same
    assert ledger.read(tmp_path / "run" / "ledgers" / "cam.ledger").balanced


def test_killed_workers_are_replaced_and_counters_never_step_back(tmp_path: Path):
    config = site(tmp_path, [{"id": "cam", "uri": f"demo:clips/{DRONE}", "band": "infrared"}])
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


def test_a_supervisor_that_is_killed_leaves_no_orphan(tmp_path: Path):
    config = site(tmp_path, [{"id": "cam", "uri": f"demo:clips/{DRONE}", "band": "infrared"}])
    with Running("run", config) as program:
        program.wait_for_line("camera.up")
        descriptors = [os.pidfd_open(pid) for pid in program.children() if pid != program.process.pid]
        assert len(descriptors) == 4
        program.process.kill()
        ended = threading.Event()
        threading.Thread(target=lambda: (_wait_for_all(descriptors), ended.set()), daemon=True).start()
        assert ended.wait(20), f"left: {program.children()}"


def _wait_for_all(descriptors: list[int]) -> None:
    import select

    for descriptor in descriptors:
        select.select([descriptor], [], [])
        os.close(descriptor)


def test_what_cannot_start_stops_the_program_with_its_reason(tmp_path: Path):
    (tmp_path / "bad.pth").write_bytes(b"no checkpoint")
    camera = {"id": "cam", "uri": f"demo:clips/{DRONE}", "band": "infrared"}
    damaged = dasnet("run", site(tmp_path, [camera], model={"checkpoint": "bad.pth"}))
    assert damaged.returncode == 1 and "bad.pth: is damaged or no checkpoint" in damaged.stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for section, code in (("console", 2), ("metrics", 1)):
            refused = dasnet("run", site(tmp_path, [camera], **{section: {"port": port}}))
            assert (refused.returncode, str(port) in refused.stderr) == (code, True), refused.stderr
    missing = dasnet("run", site(tmp_path, [camera], model={"checkpoint": "none.pth"}))
    assert missing.returncode == 2 and "model.checkpoint: no such file" in missing.stderr


def test_two_programs_in_one_run_folder_are_refused(tmp_path: Path):
    config = site(tmp_path, [{"id": "cam", "uri": f"demo:clips/{DRONE}", "band": "infrared"}])
    with Running("run", config) as program:
        program.wait_for_line("camera.up")
        second = dasnet("run", config)
        assert second.returncode == 1
        assert "another dasnet runs in this folder" in second.stderr
        assert program.stop(signal.SIGINT) == 0


def test_make_run_shows_both_demo_cameras_within_ten_seconds_and_ctrl_c_ends_it(tmp_path: Path):
    demo = yaml.safe_load(Path("configs/demo.yaml").read_text())
    cameras = [{**camera, "uri": camera["uri"].replace("..", str(CLIPS.parents[2]))} for camera in demo["cameras"]]
    config = site(tmp_path, cameras)
    with Running(f"CONFIG={config}", command=["make", "--no-print-directory", "run"]) as program:
        program.wait_for_line(r"^metrics: http://127\.0\.0\.1:\d+/metrics$")
        program.wait_for_line(r"^console: http://127\.0\.0\.1:\d+/$")
        for camera in cameras:
            program.wait_for_metric(confirmed(str(camera["id"])), 1, timeout_s=10)
        os.killpg(program.process.pid, signal.SIGINT)  # what a terminal does at Ctrl-C
        program.stop()
