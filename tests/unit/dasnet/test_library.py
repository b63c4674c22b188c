"""`import dasnet`: what the README shows works, typed, on real footage."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.program import CLIPS, dasnet_in_process

import dasnet
from pipeline.capture.recordings import open_recording

DRONE = CLIPS / "IR_DRONE_015.mp4"
FRAMES = 12


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    source = open_recording(DRONE)
    return [picture.pixels for picture, _ in zip(source.frames(), range(FRAMES), strict=False)]


@pytest.fixture(scope="module")
def detector() -> dasnet.Detector:
    return dasnet.Detector(device="cpu")


def test_importing_it_loads_neither_torch_nor_opencv():
    code = "import sys, dasnet; assert dasnet.__version__ and not {'torch', 'cv2', 'zmq'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_drone_is_detected_and_its_mask_lies_in_its_box(detector: dasnet.Detector, images: list[np.ndarray]):
    detections = detector.detect(images[0], band="infrared")
    assert len(detections) >= 1 and "uav" in detections.classes
    best = int(detections.scores.argmax())
    rows, columns = np.nonzero(detections.masks[best])
    x0, y0, x1, y1 = detections.boxes[best]
    assert x0 - 1 <= columns.min() and columns.max() < x1 + 1 and y0 - 1 <= rows.min() and rows.max() < y1 + 1
    (first, *_) = detections.to_coco(image_id=7)
    assert first["image_id"] == 7 and len(first["bbox"]) == 4 and 0 < first["score"] <= 1


def test_a_batch_gives_what_single_images_give(detector: dasnet.Detector, images: list[np.ndarray]):
    colour = np.repeat(images[1][..., None], 3, axis=2) if images[1].ndim == 2 else images[1]
    batch = detector.detect_batch([images[0], colour, images[2]])
    single = [detector.detect(image) for image in (images[0], colour, images[2])]
    for one, other in zip(batch, single, strict=True):
        np.testing.assert_allclose(one.boxes, other.boxes, atol=0.5)


def test_an_empty_image_gives_no_detections_in_every_form(detector: dasnet.Detector):
    nothing = detector.detect(np.full((64, 96), 90, np.uint8))
    assert (len(nothing), nothing.classes, nothing.to_coco()) == (0, [], [])
    assert nothing.masks.shape == (0, 64, 96)
    supervision = pytest.importorskip("supervision")
    assert len(nothing.to_supervision()) == 0 and supervision


@pytest.mark.parametrize(
    ("image", "band", "message"),
    [
        (np.zeros((8, 8), np.float32), "infrared", r"image is float32 \(8, 8\); expected uint8"),
        (np.zeros((8, 8, 4), np.uint8), "visible", r"\(8, 8, 4\); expected"),
        (np.zeros((8, 8), np.uint8), "thermal", r"band is 'thermal'; must be one of visible, infrared"),
    ],
)
def test_wrong_images_are_refused(detector: dasnet.Detector, image: np.ndarray, band: str, message: str):
    with pytest.raises(ValueError, match=message):
        detector.detect(image, band)


def test_a_tracker_confirms_the_drone(detector: dasnet.Detector, images: list[np.ndarray]):
    tracker = dasnet.Tracker()
    states = [tracker.update(detector.detect(image), number / 30) for number, image in enumerate(images)]
    assert {track.label for track in states[-1] if track.state == "confirmed"} == {"uav"}
    assert len({track.id for tracks in states for track in tracks if track.state == "confirmed"}) == 1


def test_replay_gives_the_tracks_of_the_command(tmp_path: Path):
    dasnet_in_process("replay", DRONE, "--out", tmp_path, "--end", str(FRAMES), "--no-video")
    rows = []
    for frame, tracks in dasnet.replay(DRONE):
        if frame.ref.seq == FRAMES:
            break
        rows += [(frame.ref.seq + 1, t.id) for t in tracks if t.state == "confirmed" and t.is_target]
    written = [line.split(",")[:2] for line in (tmp_path / DRONE.stem / "tracks.txt").read_text().splitlines()]
    assert rows and rows == [(int(frame), int(number)) for frame, number in written]
