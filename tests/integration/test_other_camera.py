"""scripts/other_camera.py: clips whose pixels are changed, and nothing else."""

from pathlib import Path

import av
import numpy as np
import pytest
from support.data_sets import short_clips
from support.program import in_process, script_in_process

from training.datasets.dronedet import read
from training.evaluation.sensor_shift import main

FRAMES = 41  # of each clip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    train = {"split": "train"}
    return short_clips(tmp_path_factory.mktemp("data"), FRAMES, IR_DRONE_015=train, IR_BIRD_003=train)


def images(path: Path) -> np.ndarray:
    with av.open(str(path)) as video:
        return np.stack([frame.to_ndarray(format="gray") for frame in video.decode(video=0)]).astype(np.float32)


@pytest.mark.parametrize(("kind", "slope"), [("inverted", -1.0), ("faint", 0.45)])
def test_frame_for_frame_the_same_scene_in_other_tones(data: Path, tmp_path: Path, kind: str, slope: float):
    done = in_process(main, kind, "train", tmp_path / "made", "--data", data)
    assert done.returncode == 0, done.stderr
    before, after = read(data), read(tmp_path / "made")
    assert before and after
    wanted = [(clip.name, clip.frames) for clip in before if clip.split == "train"]
    assert [(clip.name, clip.frames) for clip in after] == wanted
    old, new = (images(folder / "clips" / "IR_DRONE_015.mp4") for folder in (data, tmp_path / "made"))
    assert old.shape == new.shape and len(old) == FRAMES
    for first, second in zip(old[::20], new[::20], strict=True):
        assert np.polyfit(first.ravel(), second.ravel(), 1)[0] == pytest.approx(slope, abs=0.1)

    again = in_process(main, kind, "train", tmp_path / "made", "--data", data)
    assert again.returncode == 2 and "holds labels already" in again.stderr


def test_a_folder_without_such_clips_is_told(data: Path, tmp_path: Path):
    done = script_in_process("other_camera.py", "faint", "hard", tmp_path / "made", "--data", data)
    assert done.returncode == 2 and "no thermal clip of hard" in done.stderr and not (tmp_path / "made").exists()
