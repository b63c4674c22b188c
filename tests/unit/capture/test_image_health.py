"""Frozen, black and blown-out video is recognised, on real footage never, and nothing is said of a single picture."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from support.program import REPOSITORY

from pipeline.capture.image_health import ImageHealthMonitor, ImageHealthSettings
from pipeline.capture.recordings import open_recording
from pipeline.types import Cause

CLIPS = sorted((REPOSITORY / "tests" / "data" / "clips").glob("*.mp4"))
RNG = np.random.default_rng(4)
FPS = 10


def noisy(level: float, size: tuple[int, ...] = (128, 160, 3)) -> np.ndarray:
    return np.clip(RNG.normal(level, 6, size), 0, 255).astype(np.uint8)


def faults(pictures: Iterable[np.ndarray]) -> list[tuple[int, Cause | None]]:
    """The numbers of the pictures at which the verdict changes."""
    watch, told = ImageHealthMonitor(), [(-1, None)]
    for number, pixels in enumerate(pictures):
        fault = watch.update(pixels, number / FPS)
        cause = fault.cause if fault else None
        if cause is not told[-1][1]:
            told.append((number, cause))
    return told[1:]


def test_a_frozen_picture_is_told_after_five_seconds_and_over_after_one():
    still = noisy(90)
    pictures = [noisy(90) for _ in range(20)] + [still] * 80 + [noisy(90) for _ in range(30)]
    assert faults(pictures) == [(70, Cause.FROZEN), (110, None)]


def test_the_first_picture_that_was_still_is_where_the_fault_began():
    watch, still = ImageHealthMonitor(), noisy(90)
    for number in range(70):
        fault = watch.update(noisy(90) if number < 10 else still, number / FPS)
    assert fault is not None and fault.since_s == pytest.approx(1.0)


@pytest.mark.parametrize("level", [2, 253])
def test_black_and_blown_out_pictures_are_told_after_two_seconds(level: int):
    dark = [np.clip(RNG.normal(level, 1.5, (128, 160)), 0, 255).astype(np.uint8) for _ in range(40)]
    good = [noisy(120, (128, 160)) for _ in range(30)]
    assert faults(good + dark + good) == [(50, Cause.SATURATED), (80, None)]


def test_single_odd_pictures_and_a_thermal_shutter_say_nothing():
    night = noisy(8, (128, 160))
    night[60:66, 40:80] = 200  # a lamp: not all is black
    pictures = [noisy(90) for _ in range(10)] + [np.zeros((128, 160, 3), np.uint8)] + [noisy(90) for _ in range(10)]
    assert faults(pictures) == []
    shutter = noisy(90)
    assert faults([noisy(90) for _ in range(10)] + [shutter] * 15 + [noisy(90) for _ in range(30)]) == []
    assert faults(np.roll(night, shift, axis=1) for shift in range(60)) == []


def test_a_fault_that_flickers_is_one_fault():
    black, good = np.zeros((128, 160), np.uint8), noisy(120, (128, 160))
    pictures = [black] * 25 + [good, good] + [black] * 25
    assert faults(pictures) == [(20, Cause.SATURATED)]


def test_a_still_picture_that_is_encoded_again_and_again_is_frozen(tmp_path: Path):
    path = tmp_path / "still.mp4"
    still = noisy(90, (256, 320, 3))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(FPS), options={"g": "15", "crf": "28"})
        stream.width, stream.height, stream.pix_fmt = 320, 256, "yuv420p"
        for _ in range(8 * FPS):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(still, format="rgb24")))
        container.mux(stream.encode(None))
    source = open_recording(path)
    told = faults(picture.pixels for picture in source.pictures())
    source.close()
    assert [cause for _, cause in told] == [Cause.FROZEN]


@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: clip.stem)
def test_real_footage_is_neither(clip: Path):
    watch = ImageHealthMonitor(ImageHealthSettings(frozen_s=2.0, saturated_s=0.5))
    source = open_recording(clip)
    told = [watch.update(picture.pixels, picture.pts_s) for picture in source.pictures()]
    source.close()
    assert told and not any(told)
