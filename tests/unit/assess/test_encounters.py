"""Seeded encounters: reproducible, inside what is watched, and pasted where and as strong as they should be."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.assess.drones import CROP_PX, read_drones
from pipeline.assess.encounters import CONTRASTS, DURATIONS_S, SIZES_PX, WARM_UP_S, Encounter, place, schedule
from pipeline.assess.paste import background_deviation, pasted, sharpness_px, window_px
from pipeline.types import Band

REGION = (40, 30, 300, 240)
MAST = [(150.0, 0.0), (170.0, 0.0), (170.0, 256.0), (150.0, 256.0)]


def encounters(seed: int, camera: str, count: int = 200) -> list[Encounter]:
    return [schedule(seed, camera, number, 60, read_drones()) for number in range(count)]


def test_the_library_has_drones_of_both_bands_and_stays_small():
    drones = read_drones()
    assert {drone.band for drone in drones} == set(Band)
    for drone in drones:
        alpha, difference = drone.at(1000.0)
        assert alpha.shape == difference.shape == (CROP_PX, CROP_PX)
        assert alpha.max() > 0.9 and np.abs(difference).max() > 0.5
        assert alpha[0].max() == alpha[:, 0].max() == 0


def test_a_seed_and_a_camera_give_the_same_encounters_and_others_give_others():
    assert encounters(1, "north") == encounters(1, "north")
    assert encounters(1, "north") != encounters(2, "north") != encounters(2, "south")


def test_encounters_come_once_a_minute_in_all_sizes():
    every = encounters(3, "north")
    for number, one in enumerate(every):
        assert 60 * number + WARM_UP_S <= one.start_s <= 60 * (number + 1) - one.duration_s
        assert DURATIONS_S[0] <= one.duration_s <= DURATIONS_S[1]
        assert CONTRASTS[0] <= one.contrast <= CONTRASTS[1]
    shares = np.histogram([one.size_px for one in every], [SIZES_PX[0], 8, 12, SIZES_PX[1]])[0] / len(every)
    assert shares.sum() == 1 and shares.min() > 0.2


def test_paths_stay_in_the_region_and_out_of_masks_and_are_smooth():
    placed = [(one, path) for one in encounters(5, "north", 60) if (path := place(one, REGION, [MAST]))]
    assert len(placed) > 55
    for one, path in placed:
        points = np.array([path.at(time_s) for time_s in np.arange(0, one.duration_s, 0.04)])
        assert (points >= REGION[:2]).all() and (points <= REGION[2:]).all()
        assert not any(150 < x < 170 for x in points[:, 0])
        steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
        assert steps.max() < 0.04 * 12 * one.size_px  # 6 sizes a second and the sway
        assert np.linalg.norm(np.diff(points, 2, axis=0), axis=1).max() < 0.1 * one.size_px


def test_there_is_no_place_where_everything_is_masked():
    everything = [(0.0, 0.0), (400.0, 0.0), (400.0, 400.0), (0.0, 400.0)]
    assert place(encounters(1, "north", 1)[0], REGION, [everything]) is None


@pytest.mark.parametrize("channels", [(), (3,)])
def test_a_drone_is_pasted_at_its_sub_pixel_place_with_its_contrast(channels: tuple[int, ...]):
    sky = np.full((120, 160, *channels), 90, np.uint8)
    drone = next(drone for drone in read_drones() if drone.band == Band.INFRARED)
    for scale in (0.3, 1.0):
        silent = np.zeros((window_px(scale), window_px(scale)), np.float32)
        centroids = []
        for centre in ((80.2, 60.5), (80.7, 60.5)):
            copy = pasted(sky, drone.at(0), centre, scale, 60.0, 0.6, silent)
            difference = copy.astype(float).reshape(120, 160, -1)[..., 0] - 90
            assert 25 < difference.max() < 90
            assert np.count_nonzero(difference) < window_px(scale) ** 2 / 3
            rows, columns = np.mgrid[:120, :160] + 0.5
            centroids.append([(difference * axis).sum() / difference.sum() for axis in (columns, rows)])
        assert centroids[0][0] == pytest.approx(80.2, abs=1.5) and centroids[0][1] == pytest.approx(60.5, abs=1.5)
        assert centroids[1][0] - centroids[0][0] == pytest.approx(0.5, abs=0.15)
    assert (sky == 90).all(), "the camera's own frame must not change"


def test_a_drone_at_the_edge_or_outside_is_cut_off():
    sky = np.full((40, 40), 90, np.uint8)
    crops, noise = read_drones()[0].at(0), np.zeros((window_px(1.0), window_px(1.0)), np.float32)
    assert (pasted(sky, crops, (0.0, 20.0), 1.0, 60.0, 0.6, noise) != 90).any()
    assert (pasted(sky, crops, (500.0, -300.0), 1.0, 60.0, 0.6, noise) == 90).all()


def noisy(deviation: float) -> NDArray[np.uint8]:
    return np.clip(np.random.default_rng(1).normal(100, deviation, (128, 128)), 0, 255).astype(np.uint8)


def test_the_background_is_measured_as_it_is():
    deviation, noise = background_deviation(noisy(6), [(64.0, 64.0), (30.0, 90.0)], 10)
    assert deviation == pytest.approx(6, rel=0.15) and 4 < noise < 6.5
    assert background_deviation(np.full((64, 64, 3), 120, np.uint8), [(32.0, 32.0)], 10) == (2.0, 0.0)


@pytest.mark.parametrize("blur_px", [0.8, 1.5, 2.5])
def test_the_blur_of_edges_is_measured(blur_px: float):
    scene = np.zeros((128, 128), np.float32)
    scene[30:90, 40:100] = 200
    frame = np.rint(cv2.GaussianBlur(scene, (0, 0), blur_px)).astype(np.uint8)
    assert sharpness_px(frame) == pytest.approx(blur_px, rel=0.25)
    assert sharpness_px(np.zeros((64, 64), np.uint8)) == 0.5
