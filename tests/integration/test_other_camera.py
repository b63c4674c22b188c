"""scripts/other_camera.py: clips whose pixels are changed, and nothing else."""

import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from support.program import CLIPS, REPOSITORY

from training.datasets.dronedet import read

DATA = REPOSITORY / "tests" / "data"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/other_camera.py", *map(str, arguments)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)


def pictures(path: Path) -> np.ndarray:
    with av.open(str(path)) as video:
        return np.stack([frame.to_ndarray(format="gray") for frame in video.decode(video=0)]).astype(np.float32)


@pytest.mark.parametrize(("kind", "slope"), [("inverted", -1.0), ("faint", 0.45)])
def test_frame_for_frame_the_same_scene_in_other_tones(tmp_path: Path, kind: str, slope: float):
    done = run(kind, "train", tmp_path / "made", "--data", DATA)
    assert done.returncode == 0, done.stderr
    before, after = read(DATA), read(tmp_path / "made")
    assert before and after
    wanted = [(clip.name, clip.frames) for clip in before if clip.split == "train"]
    assert [(clip.name, clip.frames) for clip in after] == wanted
    old, new = pictures(CLIPS / "IR_DRONE_015.mp4"), pictures(tmp_path / "made" / "clips" / "IR_DRONE_015.mp4")
    assert old.shape == new.shape
    for first, second in zip(old[::20], new[::20], strict=True):
        assert np.polyfit(first.ravel(), second.ravel(), 1)[0] == pytest.approx(slope, abs=0.1)

    again = run(kind, "train", tmp_path / "made", "--data", DATA)
    assert again.returncode == 2 and "holds labels already" in again.stderr


def test_a_folder_without_such_clips_is_told(tmp_path: Path):
    done = run("faint", "hard", tmp_path / "made", "--data", DATA)
    assert done.returncode == 2 and "no thermal clip of hard" in done.stderr and not (tmp_path / "made").exists()
