"""The whole program with a camera that turns: bearings follow it, and it is watched on when it no longer answers."""

import os
import shutil
from pathlib import Path

import pytest
import yaml
from support.events import until
from support.onvif_camera import OnvifCamera
from support.program import DASNET, Running, free_port

from pipeline.errors import StoreError
from pipeline.store.reader import StoreReader
from pipeline.transport.keys import make_keys
from pipeline.types import Track

pytestmark = [pytest.mark.slow, pytest.mark.live]
HFOV_DEG = 30.0


def newest(folder: Path) -> Track | None:
    try:
        with StoreReader(folder / "store.sqlite") as reader:
            return max(reader.tracks(100), key=lambda track: track.last_seen.received_utc_ns, default=None)
    except StoreError:  # it is not there yet
        return None


def site(folder: Path, ptz: OnvifCamera, name: str = "site", **changes: object) -> Path:
    pose = {"lat": 52.1, "lon": 11.6, "height_m": 50, "azimuth_deg": 10, "hfov_deg": HFOV_DEG}
    camera = {"id": "dome", "uri": "demo:scene?fps=4&seed=3", "pose": pose | {"onvif": {"url": ptz.url}}}
    camera |= {"host": "edge"} if "link" in changes else {}
    described = {"cameras": [camera], "run_dir": str(folder / name), "metrics": {"port": 0}, "console": {"port": 0}}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(described | changes))
    return path


def sees(folder: Path, azimuth_deg: float, since_ns: int = 0) -> bool:
    track = newest(folder)
    if track is None or track.bearing is None or track.last_seen.received_utc_ns <= since_ns:
        return False
    off_deg = (track.bearing.azimuth_deg - azimuth_deg + 180) % 360 - 180
    return abs(off_deg) <= HFOV_DEG / 2 + 1 and track.bearing.azimuth_sigma_deg < 6


def last_ns(folder: Path) -> int:
    track = newest(folder)
    assert track is not None
    return track.last_seen.received_utc_ns


def test_bearings_follow_the_camera_and_the_rest_goes_on_without_it(tmp_path: Path) -> None:
    run = tmp_path / "site"
    with OnvifCamera() as ptz:
        ptz.look = lambda: (0.0, 0.1, 0.0, "IDLE")
        with Running("run", site(tmp_path, ptz)) as program:
            until(lambda: sees(run, 10), 120)
            turned_ns = last_ns(run)
            ptz.look = lambda: (0.5, 0.1, 0.0, "IDLE")
            until(lambda: sees(run, 100, turned_ns), 60)
            assert program.metrics()['dasnet_pose_known{camera="dome"}'] == 1
            ptz.body = "<tptz:GetStatusResponse/>"
            program.wait_for_line("camera pose unknown, its tracks have no bearing")
            lost_ns = last_ns(run)

            def has_no_bearing() -> bool:
                track = newest(run)
                return track is not None and track.bearing is None and track.last_seen.received_utc_ns > lost_ns

            until(has_no_bearing, 60)
            values = program.metrics()
            assert values['dasnet_pose_known{camera="dome"}'] == 0
            assert values['dasnet_pose_failures_total{camera="dome",cause="answer"}'] >= 1
            assert program.stop() == 0
        written = b"".join(file.read_bytes() for file in run.rglob("*") if file.is_file())
        assert ptz.password.encode() not in written
        assert not any(ptz.password in line for line in program.lines)


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root and unshare")
def test_on_an_edge_host_with_another_clock(tmp_path: Path) -> None:
    """Its monotonic clock is a day ahead: directions are of the frames' times all the same."""
    make_keys(tmp_path / "keys", ["edge"])
    link = {"host": "127.0.0.1", "port": free_port(), "keys": str(tmp_path / "keys")}
    with OnvifCamera() as ptz:
        ptz.look = lambda: (-0.5, 0.1, 0.0, "IDLE")
        ahead = ["unshare", "--time", "--monotonic", "100000", *DASNET]
        with (
            Running("run", site(tmp_path, ptz, "here", link=link)) as here,
            Running("run", site(tmp_path, ptz, "far", link=link), "--host", "edge", command=ahead) as edge,
        ):
            until(lambda: sees(tmp_path / "here", 280), 120)
            assert edge.stop() == 0 and here.stop() == 0
            assert not [line for line in here.lines if "message rejected" in line]
