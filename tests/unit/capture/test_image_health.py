"""Frozen, black, blown-out and tampered video is recognised; neither real footage nor a single odd frame is."""

from collections.abc import Iterable
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest
from support.program import REPOSITORY

from pipeline.capture.image_health import ImageHealthMonitor, ImageHealthSettings
from pipeline.capture.recordings import open_recording
from pipeline.capture.tampering import TamperingSettings
from pipeline.types import Cause

CLIPS = sorted((REPOSITORY / "tests" / "data" / "clips").glob("*.mp4"))
SAMPLE = [pytest.param(clip, marks=[pytest.mark.slow] * (number % 3 > 0)) for number, clip in enumerate(CLIPS)]
RNG = np.random.default_rng(4)
FPS = 10
CLIP_FPS = 30
QUICK = ImageHealthSettings(tampering=TamperingSettings(armed_s=2.0, confirm_s=1.0))


def noisy(level: float, size: tuple[int, ...] = (128, 160, 3)) -> np.ndarray:
    return np.clip(RNG.normal(level, 6, size), 0, 255).astype(np.uint8)


def faults(
    frames: Iterable[np.ndarray], fps: float = FPS, settings: ImageHealthSettings | None = None
) -> list[tuple[int, Cause | None]]:
    """The frame numbers at which the fault changes."""
    monitor, changes = ImageHealthMonitor(settings), [(-1, None)]
    for number, pixels in enumerate(frames):
        fault = monitor.update(pixels, number / fps)
        cause = fault.cause if fault else None
        if cause is not changes[-1][1]:
            changes.append((number, cause))
    return changes[1:]


@cache
def footage(clip: Path) -> np.ndarray:
    """All frames of a clip, grey: 256 x 320."""
    source = open_recording(clip)
    frames = [frame.pixels for frame in source.frames()]
    source.close()
    return np.stack(frames)


def window(frames: np.ndarray, left: int, top: int) -> list[np.ndarray]:
    """A quarter of the view."""
    return list(frames[:, top : top + 128, left : left + 160])


def test_a_frozen_image_is_a_fault_after_five_seconds_until_one_second_of_change():
    still = noisy(90)
    frames = [noisy(90) for _ in range(20)] + [still] * 80 + [noisy(90) for _ in range(30)]
    assert faults(frames) == [(70, Cause.FROZEN), (110, None)]


def test_a_fault_begins_with_the_first_frame_that_showed_it():
    monitor, still = ImageHealthMonitor(), noisy(90)
    for number in range(70):
        fault = monitor.update(noisy(90) if number < 10 else still, number / FPS)
    assert fault is not None and fault.since_s == pytest.approx(1.0)


@pytest.mark.parametrize("level", [2, 253])
def test_black_and_blown_out_images_are_faults_after_two_seconds(level: int):
    dark = [np.clip(RNG.normal(level, 1.5, (128, 160)), 0, 255).astype(np.uint8) for _ in range(40)]
    good = [noisy(120, (128, 160)) for _ in range(30)]
    assert faults(good + dark + good) == [(50, Cause.SATURATED), (80, None)]


def test_single_odd_frames_and_a_thermal_shutter_are_no_faults():
    night = noisy(8, (128, 160))
    night[60:66, 40:80] = 200  # a lamp: not all is black
    frames = [noisy(90) for _ in range(10)] + [np.zeros((128, 160, 3), np.uint8)] + [noisy(90) for _ in range(10)]
    assert faults(frames) == []
    shutter = noisy(90)
    assert faults([noisy(90) for _ in range(10)] + [shutter] * 15 + [noisy(90) for _ in range(30)]) == []
    assert faults(np.roll(night, shift, axis=1) for shift in range(60)) == []


def test_a_fault_that_flickers_is_one_fault():
    black, good = np.zeros((128, 160), np.uint8), noisy(120, (128, 160))
    frames = [black] * 25 + [good, good] + [black] * 25
    assert faults(frames) == [(20, Cause.SATURATED)]


def test_a_still_image_that_is_encoded_again_and_again_is_frozen(tmp_path: Path):
    path = tmp_path / "still.mp4"
    still = noisy(90, (256, 320, 3))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(FPS), options={"g": "15", "crf": "28"})
        stream.width, stream.height, stream.pix_fmt = 320, 256, "yuv420p"
        for _ in range(8 * FPS):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(still, format="rgb24")))
        container.mux(stream.encode(None))
    source = open_recording(path)
    found = faults(frame.pixels for frame in source.frames())
    source.close()
    assert [cause for _, cause in found] == [Cause.FROZEN]


@pytest.mark.parametrize("clip", SAMPLE, ids=lambda clip: clip.stem)
def test_real_footage_has_no_fault(clip: Path):
    strict = ImageHealthSettings(2.0, 0.5, tampering=TamperingSettings(armed_s=1.0, confirm_s=0.5))
    assert faults(footage(clip), CLIP_FPS, strict) == []


def test_clips_played_one_after_another_have_no_fault():
    assert faults((frame for clip in [*CLIPS, CLIPS[0]] for frame in footage(clip)), CLIP_FPS) == []


@pytest.mark.parametrize("clip", SAMPLE, ids=lambda clip: clip.stem)
@pytest.mark.parametrize("place", [(160, 128), (0, 0), (160, 0), (60, 60)], ids=["beside", "sky", "far", "overlapping"])
def test_a_view_that_jumps_to_another_place_is_tampered_with_until_it_is_back(clip: Path, place: tuple[int, int]):
    frames = footage(clip)
    here, elsewhere = window(frames[:90], 0, 128), window(frames[90:210], *place)
    back = window(frames[210:260], 0, 128)
    assert faults([*here, *elsewhere, *back], CLIP_FPS, QUICK) == [(150, Cause.TAMPERED), (240, None)]


@pytest.mark.parametrize("clip", SAMPLE, ids=lambda clip: clip.stem)
@pytest.mark.parametrize("still", [True, False], ids=["still", "noisy"])
def test_a_covered_camera_is_tampered_with_until_it_is_uncovered(clip: Path, still: bool):
    frames = footage(clip)
    shade = np.linspace(70, 110, 320) + np.zeros((256, 1))  # a hand is lighter at one side
    cover = [shade + (0 if still else RNG.normal(0, 1.5, shade.shape)) for _ in range(300)]
    covered = [image.astype(np.uint8) for image in cover]
    recovered = [*frames[:90], *covered, *frames[210:260]]
    assert faults(recovered, CLIP_FPS, QUICK) == [(150, Cause.TAMPERED), (420, None)]


@pytest.mark.parametrize("clip", SAMPLE, ids=lambda clip: clip.stem)
def test_a_camera_that_pans_or_moves_a_little_is_not_tampered_with(clip: Path):
    frames = footage(clip)
    here = window(frames[:90], 0, 128)
    for duration_s in (0.4, 2.0):
        count = round(duration_s * CLIP_FPS)
        right = [frame[128:, x : x + 160] for frame, x in _along(frames[90:], 160, count)]
        up = [frame[y : y + 128, :160] for frame, y in _along(frames[90:], 128, count, reverse=True)]
        for pan, place in ((right, (160, 128)), (up, (0, 0))):
            assert faults([*here, *pan, *window(frames[90:210], *place)], CLIP_FPS, QUICK) == []
    for moved_px in (3, 30):
        assert faults([*here, *window(frames[90:210], moved_px, 128)], CLIP_FPS, QUICK) == []


def _along(frames: np.ndarray, length_px: int, count: int, reverse: bool = False) -> list[tuple[np.ndarray, int]]:
    places = np.linspace(0, length_px, count).round().astype(int).tolist()
    return [(frames[index % len(frames)], place) for index, place in enumerate(reversed(places) if reverse else places)]


@pytest.mark.parametrize("clip", SAMPLE, ids=lambda clip: clip.stem)
def test_polarity_gain_fog_and_passing_objects_are_no_tampering(clip: Path):
    frames = footage(clip)
    before, after = list(frames[:90]), frames[90:210]
    assert faults([*before, *(255 - after)], CLIP_FPS, QUICK) == []
    assert faults([*before, *(after // 2 + 60)], CLIP_FPS, QUICK) == []
    passing = after.copy()
    for number, frame in enumerate(passing):  # it fills half of the view for four seconds
        frame[:, max(0, 8 * number - 160) : 8 * number] = 120
    assert faults([*before, *passing, *frames[210:240]], CLIP_FPS, QUICK) == []
    fog = np.linspace(1, 0.05, 600)
    noise = RNG.normal(0, 1.5, frames.shape[1:])
    foggy = [
        (110 + share * (frames[number % 300] - 110.0) + np.roll(noise, 31 * number)).clip(0, 255).astype(np.uint8)
        for number, share in enumerate(fog)
    ]
    assert faults([*before, *foggy, *foggy[-1:] * 60], CLIP_FPS, QUICK) == []
