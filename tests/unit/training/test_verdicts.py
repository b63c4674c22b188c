"""Operators' verdicts as labelled clips: each frame has the track's box, and what cannot be a label is named."""

import shutil
from pathlib import Path

import msgspec
import pytest
import yaml
from support.clips import FPS, SIZE_PX, video
from support.events import gone, raised, track

from pipeline.config import file
from pipeline.errors import ConfigError
from pipeline.evidence.leaves import Program
from pipeline.evidence.sidecars import Sidecar
from pipeline.evidence.track_paths import BoxAt, TrackPath
from pipeline.store import reviews
from pipeline.store.clips import ClipRecord, record_path, video_path, write_record
from pipeline.store.store import Store
from pipeline.types import TrackState, Verdict
from training.datasets import dronedet
from training.verdicts import run_label_from_store

ZERO_S, FRAMES = 7.0, 2 * FPS


@pytest.fixture
def site(tmp_path: Path) -> Path:
    path = tmp_path / "site.yaml"
    camera = {"id": "north", "uri": "demo:scene", "band": "infrared"}
    path.write_text(yaml.safe_dump({"cameras": [camera], "run_dir": str(tmp_path / "run")}))
    return path


def add(site: Path, store: Store, number: int, verdict: Verdict | None, with_clip: bool = True) -> str:
    """An alert whose target moves by 10 px a second, detected from .4 to 1.6 s of its clip, with a verdict."""
    config = file.load(site)
    events = raised(track(number))
    alert = events[0].id
    store.append([*events, *gone(track(number, 9), alert)])
    if verdict is not None:
        reviews.review(config.store_path, alert, verdict, None, 1)
    if with_clip:
        config.clips_path.mkdir(exist_ok=True, parents=True)
        config.evidence_path.mkdir(exist_ok=True, parents=True)
        shutil.copyfile(video(site.parent / "a.mp4"), video_path(config.clips_path, alert))
        write_record(
            record_path(config.clips_path, alert), ClipRecord(alert, "north", "s1", 7.4, "h264", SIZE_PX, ZERO_S)
        )
        times_s = [0.1 * tenth for tenth in range(4, 17)]
        boxes = [BoxAt(0, ZERO_S + t, 0, 10 * t, 20, 10 * t + 8, 26, 0.9, TrackState.CONFIRMED) for t in times_s]
        program = Program("1", "c" * 64, "d" * 64)
        sidecar = Sidecar(
            alert=alert, camera="north", program=program, configuration="", events=[], files={},
            tracks=[TrackPath("u", number, "unknown", boxes)],
        )  # fmt: skip
        (config.evidence_path / f"{alert}.json").write_bytes(msgspec.json.encode(sidecar))
    return alert


def test_verdicts_are_labelled_clips(site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Store(file.load(site).store_path) as store:
        drone = add(site, store, 1, Verdict.UAV)
        bird = add(site, store, 2, Verdict.BIRD)
        add(site, store, 3, Verdict.REFLECTION)
        add(site, store, 4, Verdict.AIRCRAFT, with_clip=False)
        add(site, store, 5, None)
    assert run_label_from_store(site, tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "2 clips with labels" in said
    assert "left out: 1, verdict reflection: no class of the network" in said and "left out: 1, no clip" in said
    clips = {clip.name: clip for clip in dronedet.read(tmp_path / "out") or []}
    assert {name: clip.clip_class for name, clip in clips.items()} == {drone: "drone", bird: "bird"}
    clip = clips[drone]
    assert (clip.sensor, clip.camera, clip.fps) == ("infrared", "north", FPS) and len(clip.frames) == FRAMES
    seen = {number for number, objects in enumerate(clip.frames) if objects}
    assert seen == set(range(10, 41)), "from .4 to 1.6 s, at 25 frames/s"
    x0, y0, x1, y1 = clip.frames[11][0].xyxy
    assert (x0, y0, x1 - x0, y1 - y0) == pytest.approx((4.4, 20, 8, 6)), "between two recorded boxes"


def test_a_site_without_verdicts_is_told(site: Path, tmp_path: Path) -> None:
    with Store(file.load(site).store_path) as store:
        add(site, store, 1, None)
    with pytest.raises(ConfigError, match="no alert has a verdict"):
        run_label_from_store(site, tmp_path / "out")
