"""What is wrong with a data set's files is named before training begins; and the cache of what is right."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import data_sets
from support.data_sets import HEIGHT, TARGET, WIDTH, fault_of, mask, picture, write

from training.cache import cache_frames, every_nth
from training.datasets import DataError, open_dataset, validate
from training.quick_eval import quick_eval_frames

X0, Y0, X1, Y1 = TARGET


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("images/a.png", b"no picture", "images/a.png: is broken or no image"),
        ("images/a.png", b"", "images/a.png: is broken or no image"),
        ("masks/a.png", b"no picture", "masks/a.png: is broken or no image"),
        ("masks/a.png", mask()[:50], "masks/a.png: is a mask of 160x50 pixels; must be 160x128, as "),
        ("masks/a.png", picture(), "masks/a.png: is not a mask: it has "),
        ("masks/a.png", mask() | 255, "masks/a.png: is not a mask, no pixel is background"),
        ("classes/a.png", mask(9), "classes/a.png: is not a label map; expected one channel of 0 to 4"),
    ],
)
def test_broken_pictures_and_masks_are_named(tmp_path: Path, file: str, content: Any, message: str) -> None:
    data_sets.pairs(tmp_path)
    if isinstance(content, bytes):
        (tmp_path / "train" / file).write_bytes(content)
    else:
        write(tmp_path / "train" / file, content)
    fault = fault_of(tmp_path)
    assert fault.startswith("data: 1 fault\n") and message in fault


def test_a_picture_cut_off_is_named(tmp_path: Path) -> None:
    data_sets.original(tmp_path)
    image = next(tmp_path.rglob("*.jpg"))
    image.write_bytes(image.read_bytes()[:-200])
    assert f"{image}: is broken" in fault_of(tmp_path)


def test_soft_edges_are_still_a_mask(tmp_path: Path) -> None:
    data_sets.pairs(tmp_path)
    soft = mask().astype(np.float32)
    soft[Y0 - 1, X0:X1] = soft[Y1, X0:X1] = 128
    write(tmp_path / "train" / "masks" / "a.png", soft.astype(np.uint8))
    (recording,) = open_dataset(tmp_path, ["train"])
    (frame,) = recording.read([0])
    assert frame.labels.sum() == 12 * 10


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    data_sets.original(tmp_path)
    empty = tmp_path / "UAVSemanticSegmentationInput" / "val" / "s9" / "infrared"
    empty.mkdir(parents=True)
    assert f"{empty}: holds no image" in fault_of(tmp_path)


def test_images_without_any_mask_are_a_fault(tmp_path: Path) -> None:
    write(tmp_path / "input" / "train" / "s" / "visible" / "a.jpg", picture())
    (tmp_path / "labels").mkdir()
    assert "no labelled frame in 1 recordings, images without a mask: 1" in fault_of(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.1\n", r"0.txt: line 1 is '0 0.5 0.5 0.1'; expected a class \(of 3\), then a box \(centre x"),
        ("0 66 44 12 8\n", "0.txt: line 1 is '0 66 44 12 8'"),
        ("7 0.5 0.5 0.1 0.1\n", "0.txt: line 1 is '7 0.5"),
        ("0 0.5 0.5 0 0.1\n", r"0.txt: line 1: box \(.*\) has no area, in .*0.jpg"),
        ("0 1.5 0.5 0.1 0.1\n", r"0.txt: line 1: box \(.*\) lies outside the frame of 160x128 pixels, in .*0.jpg"),
    ],
)
def test_wrong_yolo_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    data_sets.yolo(tmp_path, lines=(line,))
    with pytest.raises(DataError, match=message):
        validate(open_dataset(tmp_path))


def test_missing_coco_images_are_named(tmp_path: Path) -> None:
    data_sets.coco(tmp_path)
    (tmp_path / "val2017" / "1.jpg").unlink()
    assert "val2017/1.jpg: cannot be read (No such file or directory)" in fault_of(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 320}, "A.mp4: has frames of 160x128 pixels; must be 320x128, as labelled"),
        ({"frames": []}, "A.mp4: holds no labelled frame"),
        ({"frames": [[], [{"id": 0, "class": "drone", "box": [200, 9, 5, 5]}]]}, "A.mp4: frame 1: box "),
    ],
)
def test_wrong_labels_of_videos_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    data_sets.dronedet(tmp_path, **changes)
    assert message in fault_of(tmp_path)


def test_broken_videos_are_named(tmp_path: Path) -> None:
    data_sets.anti_uav(tmp_path)
    for video in ("train/s1/infrared.mp4", "val/s2/IR.mp4"):
        (tmp_path / video).write_bytes(b"no video")
    fault = fault_of(tmp_path)
    assert fault.startswith("data: 2 faults\n")
    assert "train/s1/infrared.mp4: cannot be decoded" in fault and "val/s2/IR.mp4: cannot be decoded" in fault


def test_the_first_ten_faults_are_named_and_all_are_counted(tmp_path: Path) -> None:
    data_sets.yolo(tmp_path, lines=["0 1\n"] * 14)
    lines = fault_of(tmp_path).splitlines()
    assert lines[0] == "data: 14 faults" and len(lines) == 12 and lines[-1].strip() == "and 4 more"


# --- the cache ---


def test_the_cache_keeps_the_bytes_of_image_files(tmp_path: Path) -> None:
    data_sets.original(tmp_path / "data")
    recordings = open_dataset(tmp_path / "data", ["train"])
    frames = cache_frames(tmp_path / "cache", recordings, every_nth(recordings, 1, 1))
    content = next((tmp_path / "cache").glob("*/frames.bin")).read_bytes()
    clip = frames.clips[0]
    assert [(one.name, one.sensor, one.clip_class) for one in frames.clips] == [
        ("train/s1/infrared", "infrared", "drone"),
        ("train/s1/visible", "visible", "drone"),
    ]
    files = sorted((tmp_path / "data" / "UAVSemanticSegmentationInput" / "train" / "s1" / "infrared").iterdir())
    for file, frame in zip(files, clip.frames, strict=True):
        assert content[frame.offset : frame.offset + frame.image_bytes] == file.read_bytes()
        image, labels = frames.read(frame)
        assert image.shape == (HEIGHT, WIDTH, 3)
        np.testing.assert_array_equal(labels, mask(1))
        assert frame.labels == (1,) and frame.boxes == (TARGET,)


def test_the_cache_is_made_once_and_again_when_a_file_changes(tmp_path: Path) -> None:
    data_sets.pairs(tmp_path / "data")

    def make() -> int:
        recordings = open_dataset(tmp_path / "data", ["train"])
        cache_frames(tmp_path / "cache", recordings, {"train": [0]})
        return len(list((tmp_path / "cache").iterdir()))

    assert make() == make() == 1
    write(tmp_path / "data" / "train" / "masks" / "a.png", np.roll(mask(), 5))
    assert make() == 2


def test_the_cache_is_not_made_of_broken_data(tmp_path: Path) -> None:
    data_sets.pairs(tmp_path / "data")
    (tmp_path / "data" / "train" / "images" / "a.png").write_bytes(b"")
    recordings = open_dataset(tmp_path / "data")
    with pytest.raises(DataError, match="is broken or no image"):
        cache_frames(tmp_path / "cache", recordings, every_nth(recordings, 1, 1))
    assert not (tmp_path / "cache").exists()


def test_frames_to_check_are_those_that_may_show_the_object(tmp_path: Path) -> None:
    data_sets.anti_uav(tmp_path / "boxes")
    data_sets.original(tmp_path / "masks")
    chosen = quick_eval_frames(open_dataset(tmp_path / "boxes", ["train", "test"]), 3, 1)
    assert chosen["train/s1/infrared"] == [0, 1, 3] and chosen["test/s3/IR"] == [0, 0, 0]
    assert set(quick_eval_frames(open_dataset(tmp_path / "masks", ["val"]), 1, 1)["val/s2/infrared"]) == {0}


def test_data_sets_need_no_video_decoder_torch_or_pydantic_to_import() -> None:
    program = "import sys, training.label; print(*{'av', 'torch', 'pydantic', 'scipy', 'rich'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""
