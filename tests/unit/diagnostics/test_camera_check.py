"""`dasnet check`: what is missing on this machine; with --connect, real cameras, as their workers would open them."""

import re
import socket
import threading
import time
from pathlib import Path

import cv2
import pytest
import yaml
from support.program import CLIPS, dasnet, dasnet_in_process
from support.rtsp import RtspCameras, missing_packages

import pipeline.diagnostics.camera_check
from pipeline.config.camera import Camera
from pipeline.config.file import load
from pipeline.diagnostics.camera_check import check_cameras
from pipeline.diagnostics.preflight import check_machine
from pipeline.errors import ConfigError

PASSWORDS = ["S3cr[et-Part]9", "a#b", "p%41:w/@?", "w ö'\"$${x}", "&=+;,!*()~"]
CLIP = next(CLIPS.glob("*.mp4"))


def site(folder: Path, **settings: object) -> Path:
    path = folder / "site.yaml"
    path.write_text(yaml.safe_dump({"run_dir": str(folder / "run"), **settings}))
    return path


@pytest.mark.skipif(missing_packages() is not None, reason=str(missing_packages()))
def test_every_camera_is_opened_and_measured_or_says_why_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {
        f"north{number}": {"file": str(CLIP), "fps": 20, "user": "me", "password": password, "transport": "tcp"}
        for number, password in enumerate(PASSWORDS)
    }
    with RtspCameras(wanted) as served, socket.create_server(("127.0.0.1", 0)) as silent:
        entries = []
        for number, password in enumerate(PASSWORDS):
            monkeypatch.setenv(f"PASSWORD_{number}", password)
            name = f"north{number}"
            place = f"127.0.0.1:{served.ports[name]}/stream"
            entries.append({"id": name, "uri": f"rtsp://me:${{PASSWORD_{number}}}@{place}", "band": "infrared"})
        entries += [
            {"id": "wrong", "uri": served.uri("north0", password="wr0ng")},
            {"id": "silent", "uri": f"rtsp://me:swordfish@127.0.0.1:{silent.getsockname()[1]}/s"},
            {"id": "clip", "uri": f"file:{CLIP}"},
            {"id": "scene", "uri": "demo:scene?fps=10"},
            {"id": "elsewhere", "uri": "rtsp://192.0.2.1/s", "host": "edge"},
        ]
        started_s = time.monotonic()
        link = {"host": "127.0.0.1", "encrypted": False}
        ended = dasnet("check", "--connect", site(tmp_path, cameras=entries, link=link))
    text = ended.stdout
    assert ended.returncode == 1 and ended.stderr == "", ended.stderr + text
    assert time.monotonic() - started_s < 30, "all at once"
    size = "x".join(map(str, cv2.imread(str(tmp_path / "run/check/north0.png")).shape[1::-1]))
    for number in range(len(PASSWORDS)):
        found = re.search(rf"ok  +camera north{number}: h264, {size}, ([\d.]+) frames/s measured, .* image (\S+)", text)
        assert found is not None and 12 < float(found[1]) < 30, text
        assert Path(found[2]) == tmp_path / f"run/check/north{number}.png" and cv2.imread(found[2]) is not None
    assert re.search(r"FAILED +camera wrong: at 127.0.0.1:\d+: the camera refuses the user or the password", text)
    assert re.search(r"FAILED +camera silent: at 127.0.0.1:\d+: no answer within 5 s", text)
    assert re.search(rf"ok  +camera clip: h264, {size}, \d+ declared", text)
    assert re.search(r"ok  +camera scene: rawvideo, 640x512, (9|10|11)\.\d frames/s measured, 10 declared", text)
    assert "camera elsewhere:" not in text.partition("run folder")[2] and "7 of 9 cameras deliver frames" in text
    assert not any(secret in text for secret in [*PASSWORDS, "swordfish", "wr0ng"])


def test_all_cameras_well_is_exit_code_0(tmp_path: Path) -> None:
    zones = {"near": [[0, 0], [640, 0], [640, 9]], "far": [[0, 0], [900, 0], [900, 9]]}
    cameras = [{"id": "a", "uri": "demo:scene?fps=30", "zones": zones}]
    rules = [{"name": "gate", "zones": ["near"]}, {"name": "rest", "action": "record"}]
    ended = dasnet_in_process("check", "--connect", site(tmp_path, cameras=cameras, rules=rules))
    assert "zones far, near\n" in ended.stdout
    assert "rules, in order: gate, rest (record); all else: alert" in ended.stdout
    assert "zones that reach beyond the frame: far, image" in ended.stdout
    assert ended.returncode == 0 and "1 of 1 cameras deliver frames" in ended.stdout, ended.stderr
    assert (tmp_path / "run/check/a.png").is_file() and not (tmp_path / "run/ledgers").exists()


def test_a_camera_whose_library_never_comes_back_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As FFmpeg does not from a name server that is silent."""
    released = threading.Event()
    monkeypatch.setattr(pipeline.diagnostics.camera_check, "TIME_LIMIT_S", 0.2)
    monkeypatch.setattr(pipeline.diagnostics.camera_check, "open_source", lambda _: released.wait())
    report, healthy = check_cameras([Camera(id="stuck", uri="rtsp://nowhere/s")], tmp_path)
    released.set()
    assert not healthy and "FAILED   camera stuck: no answer within 0 s" in report


def test_what_is_missing_is_said_at_once_by_check_and_run(tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text("a file")
    cameras = [
        {"id": "a", "uri": "file:none.mp4"},
        {"id": "b", "uri": "sdp:none.sdp"},
        {"id": "c", "uri": "demo:clips/none?first=x"},
        {"id": "d", "uri": "file:/nowhere/me:swordfish@host/x.mp4"},
        {"id": "e", "uri": "file:there.mp4", "host": "edge"},
    ]
    path = site(
        tmp_path,
        cameras=cameras,
        model={"checkpoint": "none.pth"},
        console={"password_file": "none.password"},
        link={"host": "127.0.0.1", "keys": "none"},
        run_dir=str(tmp_path / "blocked" / "run"),
    )
    for command in ("check", "run"):
        ended = dasnet(command, path)
        assert ended.returncode == 2 and "swordfish" not in ended.stderr
        lines = [line.removeprefix("error: ") for line in ended.stderr.splitlines()]
        assert all(line.startswith(f"{path}: ") for line in lines)
        assert [line.removeprefix(f"{path}: ").partition(":")[0] for line in lines] == [
            *(f"cameras[{number}].uri" for number in range(4)),
            *("model.checkpoint", "console.password_file", "link.keys", "run_dir"),
        ]
        assert (
            f"no such file; must be a .safetensors or .pth file, or dasnet-s (given: '{tmp_path}/none.pth')"
            in ended.stderr
        )
        assert (
            f"run_dir: cannot be written (Not a directory); must be in a writable folder (given: '{tmp_path}"
            in ended.stderr
        )
    edge = dasnet_in_process("check", path, "--host", "edge")
    assert edge.returncode == 2 and "cameras[4].uri: does not exist" in edge.stderr and "cameras[0]" not in edge.stderr
    assert "none/hosts/edge.key_secret is missing" in edge.stderr and "model.checkpoint" not in edge.stderr
    unknown = dasnet_in_process("check", path, "--host", "nobody")
    assert unknown.returncode == 2 and "no camera is on host 'nobody'" in unknown.stderr


def test_only_check_rejects_unwritable_folders_of_store_sinks_and_log(tmp_path: Path) -> None:
    """A site starts without them: events wait, and the log file is opened when it can be."""
    (tmp_path / "blocked").write_text("a file")
    settings = {"store": {"path": "blocked/store"}, "sinks": [{"type": "jsonl", "path": "blocked/events"}]}
    settings |= {"log": {"file": "/proc/none/dasnet.log"}}
    path = site(tmp_path, cameras=[{"id": "a", "uri": "demo:scene"}], **settings)
    config = load(path)
    check_machine(path, config)
    with pytest.raises(ConfigError) as caught:
        check_machine(path, config, outputs=True)
    assert "log.file: cannot be written (No such file or directory); must be" in str(caught.value)
    assert "store.path: cannot be written (Not a directory); must be" in str(caught.value)
    assert not (tmp_path / "run").exists(), "what was tried is undone"
