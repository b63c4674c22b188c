"""Thermal pictures of more than 8 bits: what a camera's worker, a replay, a prediction and a training make of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.capture.open import open_recording
from pipeline.imaging.agc import MIN_SPAN, SMOOTHING_S, AutomaticGainControl
from pipeline.imaging.files import decoded
from training.datasets import open_dataset

FPS = 25


def sky(number: int = 0, offset: int = 0) -> NDArray[np.uint16]:
    """14 bits, of which the scene fills 400: warmer towards the ground, with a sensor's noise."""
    random = np.random.default_rng(number)
    rows = np.linspace(7800, 8200, 256)[:, None] + random.normal(0, 2, (256, 320)) + offset
    return rows.astype(np.uint16)


def with_drone(counts: NDArray[np.uint16]) -> NDArray[np.uint16]:
    warm = counts.copy()
    warm[100:104, 150:156] = 12_000
    return warm


def video(path: Path, pictures: list[NDArray[np.uint16]], layout: str = "gray16le") -> Path:
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("ffv1", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = pictures[0].shape[1], pictures[0].shape[0], layout
        for picture in pictures:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "gray16le")))
        out.mux(stream.encode(None))
    return path


def frames(path: Path) -> Iterator[NDArray[np.uint8]]:
    source = open_recording(path)
    try:
        yield from (picture.pixels for picture in source.frames())
    finally:
        source.close()


def test_a_scene_of_few_counts_has_contrast_in_a_video(tmp_path: Path) -> None:
    shown = list(frames(video(tmp_path / "thermal.mkv", [sky(number) for number in range(5)])))
    assert len(shown) == 5
    for picture in shown:
        assert picture.dtype == np.uint8 and picture.shape == (256, 320)
        assert picture[:20].mean() < 25 and picture[-20:].mean() > 230


@pytest.mark.parametrize("layout", ["gray10le", "gray12le"])
def test_fewer_bits(tmp_path: Path, layout: str) -> None:
    counts = (sky().astype(np.int64) - 7700) * 64  # converted to the upper bits of 16
    [shown] = frames(video(tmp_path / "thermal.mkv", [counts.astype(np.uint16)], layout))
    assert shown[:20].mean() < 25 and shown[-20:].mean() > 230


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_images_are_shown_as_a_video_is_and_learned_from_as_they_are_shown(tmp_path: Path, suffix: str) -> None:
    images, masks = (tmp_path / "train" / name for name in ("images", "masks"))
    images.mkdir(parents=True)
    masks.mkdir()
    cv2.imwrite(str(images / f"frame_1{suffix}"), sky())
    cv2.imwrite(str(masks / "frame_1.png"), np.zeros((256, 320), np.uint8))
    [from_video] = frames(video(tmp_path / "thermal.mkv", [sky()]))
    [from_images] = frames(images)
    np.testing.assert_array_equal(from_images, from_video)
    [recording] = open_dataset(str(tmp_path), ["train"])
    [learned] = recording.read([0])
    np.testing.assert_array_equal(learned.image, np.repeat(from_video[..., None], 3, axis=2))
    assert not learned.encoded, "a cache that kept the file's bytes would show its upper 8 bits"


def test_a_small_hot_target_saturates_and_changes_nothing_else() -> None:
    empty, warm = AutomaticGainControl()(sky()), AutomaticGainControl()(with_drone(sky()))
    assert (warm[100:104, 150:156] == 255).all()
    rest = np.ones(warm.shape, bool)
    rest[100:104, 150:156] = False
    assert np.abs(warm.astype(int) - empty)[rest].max() <= 1


def test_a_change_of_the_scene_fades_in() -> None:
    gain, before = AutomaticGainControl(), AutomaticGainControl()(sky())
    gain(sky(), 0.0)
    means = [gain(sky(offset=150), number / FPS).mean() for number in range(1, 5 * FPS)]
    assert means[0] > before.mean() + 60, "at first it is brighter"
    assert (np.diff(means) < 0.5).all(), "then it comes back without flashing"
    assert means[round(SMOOTHING_S * FPS) - 1] < before.mean() + 45 and abs(means[-1] - before.mean()) < 2


def test_after_a_calibration_that_moves_all_counts_something_is_seen_at_once() -> None:
    gain = AutomaticGainControl()
    gain(sky(), 0.0)
    shown = gain(sky(offset=2000), 1 / FPS)
    assert shown[:20].mean() < 25 and shown[-20:].mean() > 230


def test_an_even_sky_is_not_blown_up() -> None:
    even = np.full((256, 320), 8000, np.uint16)
    assert (AutomaticGainControl()(even) == 128).all()
    assert AutomaticGainControl()(even + np.arange(320, dtype=np.uint16) % 4).std() < 255 * 4 / MIN_SPAN


def test_pictures_of_8_bits_stay_as_they_are(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
    coloured = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    for picture in (grey, coloured):
        found = decoded(cv2.imencode(".png", picture)[1])
        assert found is not None
        np.testing.assert_array_equal(
            AutomaticGainControl()(found), picture if picture.ndim == 2 else picture[..., ::-1]
        )
    deep = decoded(cv2.imencode(".png", coloured.astype(np.uint16) * 257)[1])
    assert deep is not None and deep.dtype == np.uint8
    np.testing.assert_array_equal(deep, coloured[..., ::-1])
