"""Chips of labelled videos: what they show, how they are registered, kept and packed."""

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from support.program import REPOSITORY

from model.metadata import CLASSES
from training.datasets import DataError, open_dataset
from training.datasets.clip import Clip, open_clip
from training.datasets.recording import BrokenDataError, LabelledObject
from training.judge.chip_set import MOTION, STATIC, ChipSet, RecordingChips, pack, unpack
from training.judge.chips import MAX_LOOK, SIDE_PX, ChipSettings, collect_chips

DATA = REPOSITORY / "tests" / "data"
LAGS_S = (0.0, 0.1, 0.2, 0.35, 0.5)


def test_a_clips_chips_show_its_own_class_and_clutter(chip_sets: dict[str, ChipSet]) -> None:
    shown = {part.name: set(part.kinds.tolist()) for chips in chip_sets.values() for part in chips.parts}
    assert shown["IR_DRONE_015"] == {CLASSES.index("uav"), MOTION, STATIC}
    assert shown["IR_BIRD_003"] == {CLASSES.index("bird"), MOTION, STATIC}
    assert shown["IR_AIRPLANE_006"] == {CLASSES.index("airplane"), MOTION, STATIC}
    assert shown["IR_HELICOPTER_010"] == {CLASSES.index("helicopter"), MOTION, STATIC}
    assert [part.name for part in chip_sets["check"].parts] == ["IR_HELICOPTER_010"]
    train = chip_sets["train"]
    assert train.at(np.arange(3)).shape == (3, len(LAGS_S), SIDE_PX, SIDE_PX)
    assert train.seen(np.arange(3)).shape == (3, len(LAGS_S), 48, 48)
    assert (train.lengths_px[train.is_target] >= 2.5).all() and not train.lengths_px[~train.is_target].any()


def test_a_target_stands_out_in_the_middle_of_its_chip(chip_sets: dict[str, ChipSet]) -> None:
    train = chip_sets["train"]
    chosen = train.is_target & (train.kinds != CLASSES.index("bird"))  # the bird is faint before a gradient
    newest = train.seen(np.flatnonzero(chosen))[:, 0].astype(float)
    contrast = np.abs(newest - np.median(newest, axis=(1, 2), keepdims=True))
    assert len(contrast) > 50
    assert np.mean(contrast[:, 16:32, 16:32].max(axis=(1, 2)) == contrast.max(axis=(1, 2))) > 0.95


def test_a_second_call_reads_what_the_first_one_kept(chip_sets: dict[str, ChipSet], cache: Path) -> None:
    files = sorted((cache / "chips").iterdir())
    before = [file.stat().st_mtime_ns for file in files]
    again = collect_chips(open_dataset(DATA, ["val"]), ChipSettings(), cache)
    assert [file.stat().st_mtime_ns for file in files] == before and sorted((cache / "chips").iterdir()) == files
    assert np.array_equal(again.kinds, chip_sets["check"].kinds)
    assert isinstance(again.parts[0].chips, np.memmap), "a large set must not be read into memory"


def test_collecting_again_gives_the_same_and_at_most_as_many_as_wanted(
    chip_sets: dict[str, ChipSet], tmp_path: Path
) -> None:
    clip = open_dataset(DATA, ["val"])
    again = collect_chips(clip, ChipSettings(), tmp_path / "again")
    everything = np.arange(len(again))
    assert np.array_equal(again.at(everything), chip_sets["check"].at(everything))
    few = collect_chips(clip, ChipSettings(max_chips=40), tmp_path / "few")
    assert MAX_LOOK < len(few) <= 40
    ends_s = [np.ptp(np.flatnonzero(np.diff(chips.kinds.astype(int)) < 0)) for chips in (few, again)]
    assert ends_s[0] < ends_s[1]


def panned(folder: Path, shift_px: int, frames: int = 60) -> Clip:
    """A textured scene that stands still, under a camera that pans."""
    rng = np.random.default_rng(0)
    scene = cv2.GaussianBlur(rng.normal(0, 1, (256, 320 + shift_px * frames)), (0, 0), 2.5)
    scene = (120 + 40 * scene / scene.std()).clip(0, 255).astype(np.uint8)
    path = folder / "panned.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "8", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 320, 256, "yuv420p"
        for number in range(frames):
            left = number * shift_px
            image = np.repeat(scene[:, left : left + 320, None], 3, axis=2)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    empty: tuple[tuple[LabelledObject, ...], ...] = ((),) * frames
    return open_clip("panned", path, "infrared", "train", "drone", empty)


def test_what_stands_still_does_so_in_the_chips_of_a_panning_camera(tmp_path: Path) -> None:
    chips = collect_chips([panned(tmp_path, 3)], ChipSettings(every_s=0.2), tmp_path / "cache")
    seen = chips.seen(np.flatnonzero(chips.kinds == STATIC)).astype(float)[:, :, 12:-12, 12:-12]
    seen = seen[len(seen) // 3 :]  # once the history is long
    texture = np.median(seen[:, 0].std(axis=(1, 2)))
    moved = np.median(np.abs(seen[:, :1] - seen[:, 1:]).mean(axis=(2, 3)))
    unregistered = np.median(np.abs(seen[:, 0, :, 9:] - seen[:, 0, :, :-9]).mean(axis=(1, 2)))  # 0.1 s of the pan
    assert texture > 15 and unregistered > 15
    assert moved < 0.25 * unregistered


def test_stills_and_broken_videos_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data: 1 recordings of train, none a labelled video; expected one or more"):
        collect_chips(open_dataset("scene:count=2,seed=1", ["train"])[:1], ChipSettings(), tmp_path)
    clip = panned(tmp_path, 0, 8)
    clip.path.write_bytes(clip.path.read_bytes()[:700])
    with pytest.raises(BrokenDataError, match=r"panned.mp4: cannot be decoded"):
        collect_chips([clip], ChipSettings(), tmp_path / "cache")


def recording(name: str, count: int, kind: int, seed: int) -> RecordingChips:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, 5, SIDE_PX, SIDE_PX), np.uint8)
    lengths = np.arange(count, dtype=np.float32)
    return RecordingChips(name, "infrared", pixels, np.full(count, kind, np.int8), lengths)


def test_a_packed_set_is_the_same_again(tmp_path: Path) -> None:
    train = ChipSet([recording("a", 5, 0, 1), recording("b", 9, MOTION, 2)], LAGS_S, 48)
    pack(tmp_path / "p.npz", {"train": train, "check": ChipSet([], LAGS_S, 48)}, 10 << 20)
    again = unpack(tmp_path / "p.npz")
    assert set(again) == {"train", "check"} and len(again["check"]) == 0
    assert [part.name for part in again["train"].parts] == ["a", "b"]
    assert again["train"].lags_s == LAGS_S and again["train"].side_px == 48
    for chosen in (np.arange(14), np.array([13, 0, 5])):
        assert np.array_equal(again["train"].at(chosen), train.at(chosen))
    assert np.array_equal(again["train"].kinds, train.kinds)
    assert np.array_equal(again["train"].lengths_px, train.lengths_px)


def test_a_packed_set_keeps_to_its_limit_and_all_of_a_short_recording(tmp_path: Path) -> None:
    sets = {"train": ChipSet([recording("long", 60, 0, 1), recording("short", 4, 1, 2)], LAGS_S, 48)}
    pack(tmp_path / "p.npz", sets, 400_000)  # noise of 20 kB each: 19 of 64
    assert 300_000 < (tmp_path / "p.npz").stat().st_size <= 400_000
    kept = {part.name: len(part) for part in unpack(tmp_path / "p.npz")["train"].parts}
    assert kept["short"] == 4 and 10 < kept["long"] < 20
    assert not list(tmp_path.glob("*.partial*"))
