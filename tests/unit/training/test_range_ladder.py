"""The range ladder: smaller frames with the labels and the noise that belong to them."""

import cv2
import numpy as np
import pytest
from support.program import REPOSITORY

from training.datasets import Clip, open_dataset
from training.evaluation.range_ladder import SCALES, Shrinking, noise_level, shrunk_clip


def sky(noise: float, side_px: int = 256) -> np.ndarray:
    random = np.random.default_rng(0)
    slope = np.linspace(60, 180, side_px)[None] + np.linspace(0, 20, side_px)[:, None]
    image = slope + random.normal(0, noise, (side_px, side_px))
    image[side_px // 2 :: 16] += 40  # a fence: half of the frame has edges
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("noise", [1.0, 2.0, 6.0])
def test_noise_is_measured_beside_edges(noise: float):
    assert noise_level(sky(noise)) == pytest.approx(noise, rel=0.25)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("noise", [1.5, 5.0])
def test_a_shrunk_frame_is_as_noisy_as_before(scale: float, noise: float):
    before = sky(noise, 512)
    after = Shrinking("c", scale)(before)
    assert after.shape == (round(512 * scale), round(512 * scale)) and after.dtype == np.uint8
    assert noise_level(after) == pytest.approx(noise_level(before), rel=0.2)
    assert after.mean() == pytest.approx(before.mean(), abs=1)
    averaged = cv2.resize(before, after.shape[::-1], interpolation=cv2.INTER_AREA)
    assert noise_level(averaged) < 0.9 * noise_level(before)  # what averaging alone would do


def test_noise_is_the_same_in_every_run_and_in_all_colours():
    frame = np.repeat(sky(4.0)[..., None], 3, axis=2)
    first, second = Shrinking("c", 0.5), Shrinking("c", 0.5)
    np.testing.assert_array_equal(first(frame), second(frame))
    later = first(frame)
    np.testing.assert_array_equal(later, second(frame))
    assert (later != Shrinking("c", 0.5)(frame)).any()  # another frame, other noise
    assert (later[..., 0] == later[..., 2]).all()


def test_labels_shrink_with_their_frames():
    clips = [clip for clip in open_dataset(REPOSITORY / "tests" / "data") if isinstance(clip, Clip)]
    clip = next(clip for clip in clips if clip.name == "IR_DRONE_015")
    shrunk = shrunk_clip(clip, 0.35)
    assert (shrunk.width_px, shrunk.height_px) == (112, 90)
    (before, *_), (after, *_) = clip.frames[0], shrunk.frames[0]
    assert after.xyxy == pytest.approx(
        [value * factor for value, factor in zip(before.xyxy, (0.35, 90 / 256) * 2, strict=True)]
    )
    (frame,) = clip.read([0])
    pixels = Shrinking(clip.name, 0.35)(frame.image)
    assert pixels.shape == (90, 112, 3)
    x0, y0, x1, y1 = (round(value) for value in after.xyxy)
    inside = pixels[y0:y1, x0:x1, 0].astype(float)
    assert abs(inside - np.median(pixels)).max() > 5 * noise_level(pixels)  # the drone is where the label says
