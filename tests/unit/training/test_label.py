"""`dasnet label`: masks of a real clip's boxes, to look at and to train on."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from support import data_sets
from support.program import dasnet_in_process

from training.datasets import Clip, open_dataset, validate
from training.label import run_label

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("labelled")
    done = dasnet_in_process("label", DATA, "--out", out, "--stride", "60", "--classes")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("6 recordings, 1827 labelled frames\n")
    return out


def test_masks_of_a_real_clip_lie_in_its_boxes(labelled: Path) -> None:
    place = Path("infrared/drone/IR_DRONE_015")
    (clip,) = open_dataset(DATA, names=["IR_DRONE_015"])
    assert isinstance(clip, Clip)
    shown = 0
    for file in sorted((labelled / "train" / "masks" / place).iterdir()):
        mask = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        image = cv2.imread(str(labelled / "train" / "images" / place / f"{file.stem}.jpg"))
        assert mask.shape == image.shape[:2] == (256, 320) and set(np.unique(mask)) <= {0, 255}
        objects = clip.frames[int(file.stem)]
        assert mask.any() == bool(objects)
        for item in objects:
            x0, y0, x1, y1 = (round(value) for value in item.xyxy)
            inside = mask[max(0, y0 - 1) : y1 + 1, max(0, x0 - 1) : x1 + 1]
            assert np.count_nonzero(inside) == np.count_nonzero(mask)  # nothing outside the box
            assert 4 < np.count_nonzero(mask) < 0.7 * (x1 - x0) * (y1 - y0)  # the target, not its label
            shown += 1
    assert shown >= 4


def test_what_was_labelled_can_be_trained_on(labelled: Path) -> None:
    recordings = open_dataset(labelled)
    validate(recordings)
    assert {(one.clip_class, one.sensor, one.split) for one in recordings} == {
        ("drone", "infrared", "train"),
        ("bird", "infrared", "train"),
        ("airplane", "infrared", "train"),
        ("helicopter", "infrared", "val"),
    }
    helicopter = next(one for one in recordings if one.clip_class == "helicopter")
    assert {item.object_class for frame in helicopter.read(range(3)) for item in frame.objects} == {"helicopter"}
    masks = (labelled / "val" / "masks").rglob("*.png")
    assert not any(cv2.imread(str(file), cv2.IMREAD_UNCHANGED).any() for file in masks)  # a helicopter is no UAV


def test_the_contact_sheet_shows_objects_and_outlines(labelled: Path) -> None:
    sheet = cv2.imread(str(labelled / "contact_sheet.png"))
    assert sheet.shape[1] > 1000 and sheet.shape[0] > 1000
    yellow = (sheet == (0, 220, 255)).all(axis=2).sum()
    assert yellow > 1000


def test_image_files_go_through_unchanged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data_sets.yolo(tmp_path / "data")
    assert run_label(str(tmp_path / "data"), tmp_path / "out", classes=False, stride=1) == 0
    assert "3 frames, 2 objects, 1 of them UAVs" in capsys.readouterr().out
    written = sorted((tmp_path / "out" / "train" / "images").rglob("*.jpg"))
    read = sorted((tmp_path / "data" / "images" / "train").iterdir())
    assert {file.read_bytes() for file in written} == {file.read_bytes() for file in read}
    assert not (tmp_path / "out" / "train" / "classes").exists()


def test_a_set_without_objects_has_a_blank_sheet(tmp_path: Path) -> None:
    data_sets.yolo(tmp_path / "data", lines=("", ""))
    assert run_label(str(tmp_path / "data"), tmp_path / "out", classes=False, stride=1) == 0
    assert not cv2.imread(str(tmp_path / "out" / "contact_sheet.png")).any()


@pytest.mark.parametrize(("make", "code"), [(None, 2), (data_sets.yolo, 1)], ids=["no data set", "a broken image"])
def test_errors_are_one_line_and_an_exit_code(tmp_path: Path, make, code: int) -> None:
    if make:
        make(tmp_path)
        (tmp_path / "images" / "train" / "0.jpg").write_bytes(b"")
    done = dasnet_in_process("label", tmp_path, "--out", tmp_path / "out")
    assert done.returncode == code
    assert done.stderr.startswith("error: data") and "Traceback" not in done.stderr
