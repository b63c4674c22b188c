"""`dasnet predict`: masks and overlays at the picture's own size; an original's checkpoint works unchanged."""

import json
import re
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from support.program import CLIPS, dasnet, dasnet_in_process
from support.tiff_files import write_tiff

from model import build
from training.datasets import Clip, open_dataset


def picture(tmp_path: Path, number: int = 60) -> Path:
    with av.open(str(CLIPS / "IR_DRONE_015.mp4")) as video:
        frame = next(frame for index, frame in enumerate(video.decode(video=0)) if index == number)
    path = tmp_path / "drone.png"
    cv2.imwrite(str(path), frame.to_ndarray(format="bgr24"))
    return path


def test_the_mask_of_a_real_drone_lies_in_its_label(tmp_path: Path):
    result = dasnet_in_process("predict", picture(tmp_path), "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    mask = cv2.imread(str(tmp_path / "out" / "drone_mask.png"), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (256, 320) and set(np.unique(mask)) == {0, 255}
    (clip,) = open_dataset(CLIPS.parent, names=["IR_DRONE_015"])
    assert isinstance(clip, Clip)
    left, top, right, bottom = clip.frames[60][0].xyxy
    ys, xs = np.nonzero(mask)
    line = rf"{tmp_path}/drone.png: 1 target \(\w+ [01]\.\d\d\), \d+ ms: {tmp_path}/out/drone_overlay.png\n"
    assert re.fullmatch(line, result.stdout)
    inside = (xs >= left - 2) & (xs <= right + 2) & (ys >= top - 2) & (ys <= bottom + 2)
    assert inside.mean() > 0.9
    assert cv2.imread(str(tmp_path / "out" / "drone_overlay.png")).shape == (256, 320, 3)


def test_counts_and_degrees_of_one_scene_give_the_same_detections(tmp_path: Path):
    grey = cv2.imread(str(picture(tmp_path)), cv2.IMREAD_GRAYSCALE).astype(np.int64)
    kinds = {
        "counts": (3000 + 2 * grey).astype(np.uint16),
        "tenths": (grey - 50).astype(np.int16),
        "degrees": ((grey - 50) / 10).astype(np.float32),
        "kelvin": (grey / 10 + 268.15).astype(np.float64),
        "planes": np.stack([grey - 50] * 3, axis=2).astype(np.int32),
    }
    paths = [write_tiff(tmp_path / f"{name}.tif", [values]) for name, values in kinds.items()]
    result = dasnet_in_process("predict", *paths, "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    counts, *others = (json.loads((tmp_path / "out" / f"{name}_boxes.json").read_text())["boxes"] for name in kinds)
    assert len(counts) == 1
    for boxes in others:
        assert len(boxes) == 1 and boxes[0]["label"] == counts[0]["label"]
        np.testing.assert_allclose(boxes[0]["xyxy"], counts[0]["xyxy"], atol=1)
        assert abs(boxes[0]["score"] - counts[0]["score"]) < 0.02


def test_a_checkpoint_of_the_original_works_unchanged_and_unreadable_pictures_do_not_stop_the_others(tmp_path: Path):
    torch.save({"epoch": 1, "model_state_dict": build("dasnet", num_class=1).state_dict()}, tmp_path / "original.pth")
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.png").touch()
    good = picture(tmp_path)
    inputs = (tmp_path / "text.jpg", tmp_path / "empty.png", tmp_path / "none.png", good)
    result = dasnet_in_process("predict", *inputs, "--out", tmp_path / "out", "--checkpoint", tmp_path / "original.pth")
    assert result.returncode == 1
    for name in ("text.jpg", "empty.png"):
        assert f"{name}: is broken or no image" in result.stderr
    assert "none.png: cannot be read (No such file or directory)" in result.stderr
    assert cv2.imread(str(tmp_path / "out" / "drone_mask.png"), cv2.IMREAD_UNCHANGED).shape == (256, 320)
    assert result.stdout.startswith(f"{good}: ") and len(result.stdout.splitlines()) == 1


def test_doctor_reports_what_is_here():
    result = dasnet("doctor")
    assert result.returncode == 0, result.stdout
    for text in ("torch", "processor:", "features:", "decoders: h264", "all requirements are met"):
        assert text in result.stdout


def test_every_command_shows_an_example():
    top = dasnet("--help")
    for command in ("run", "replay", "predict", "check", "doctor", "worker"):
        assert command in top.stdout
        assert "Example:" in dasnet_in_process(command, "--help").stdout
