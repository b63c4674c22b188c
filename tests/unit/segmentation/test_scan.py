"""Track while scan: every place is processed within a bounded time, targets often, motion soon, within the share."""

import numpy as np
import pytest

from pipeline.segmentation.scan import CELL_PX, LONGEST_S, TILE_COST, TILE_PX, Scan, Tile, core

NOWHERE = np.zeros((0, 2), np.float32)
SIZES = [(640, 512), (320, 256), (1920, 1080), (100, 90), (128, 700)]


def scanned(
    size_px: tuple[int, int], share: float, seconds: float, targets: np.ndarray = NOWHERE, moving: np.ndarray = NOWHERE
) -> tuple[Scan, list[list[Tile]]]:
    """Return what is processed of each frame, at 25 frames/s."""
    scan = Scan()
    return scan, [scan.tiles(size_px, number / 25, share, targets, moving) for number in range(round(25 * seconds))]


@pytest.mark.parametrize("size_px", SIZES)
@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
def test_the_work_stays_within_the_share_and_every_place_is_seen(size_px: tuple[int, int], share: float):
    area_px = size_px[0] * size_px[1]
    seconds = 4 * TILE_COST * (TILE_PX / CELL_PX) ** 2 / (share * 25) + 4
    scan, frames = scanned(size_px, share, seconds)
    work_px = sum(len(tiles) for tiles in frames) * TILE_COST * TILE_PX**2
    allowed_px = max(share * area_px, TILE_COST * TILE_PX**2 / (25 * LONGEST_S))  # a frame
    assert work_px <= allowed_px * (len(frames) + 1) + 2 * TILE_COST * TILE_PX**2
    seen = np.zeros((size_px[1], size_px[0]), bool)
    for tile in (tile for tiles in frames for tile in tiles):
        assert 0 <= tile[0] < tile[2] <= size_px[0] and 0 <= tile[1] < tile[3] <= size_px[1]
        x0, y0, x1, y1 = core(tile, size_px)
        seen[y0:y1, x0:x1] = True
    assert seen.mean() > 0.97, "but for slivers between cells"
    assert 0 < scan.revisit_s < seconds


@pytest.mark.parametrize("fps", [5, 25])
def test_at_the_least_share_a_target_is_processed_twice_a_second_and_an_outage_is_not_made_up_for(fps: int):
    target = np.array([(160, 128)], np.float32)
    scan = Scan()
    frames = [scan.tiles((320, 256), number / fps, 0.005, target, NOWHERE) for number in range(10 * fps)]
    assert 18 <= sum(map(len, frames)) <= 22
    assert len(scan.tiles((320, 256), 100.0, 0.005, target, NOWHERE)) <= 2


def test_a_target_is_looked_at_often_and_in_the_middle_of_its_tile():
    target = np.array([(333, 222)], np.float32)
    _, frames = scanned((640, 512), 0.1, 4, targets=target)
    on_target = [tile for tiles in frames for tile in tiles if tile[0] < 333 < tile[2] and tile[1] < 222 < tile[3]]
    assert len(on_target) > 4 * 8, "more than eight times a second"
    middles = [((x0 + x1) / 2, (y0 + y1) / 2) for x0, y0, x1, y1 in on_target]
    assert sum(abs(x - 333) < 2 and abs(y - 222) < 2 for x, y in middles) > 0.8 * len(middles)


def test_a_crowd_of_targets_does_not_end_the_scan():
    crowd = np.random.default_rng(0).uniform((0, 0), (640, 250), (60, 2)).astype(np.float32)
    scan, _ = scanned((640, 512), 0.1, 60, targets=crowd)
    assert scan.revisit_s < 30


def test_what_moves_is_looked_at_before_what_does_not():
    scan, _ = scanned((640, 512), 0.08, 10)
    place = np.array([(600, 480)], np.float32)

    def is_seen(pts_s: float) -> bool:
        tiles = scan.tiles((640, 512), pts_s, 0.08, NOWHERE, place)
        return any(x0 < 600 < x1 and y0 < 480 < y1 for x0, y0, x1, y1 in tiles)

    waited = next(number for number in range(1000) if is_seen(10 + number / 25))
    assert waited < 25


def test_whole_frames_leave_nothing_waiting():
    scan, _ = scanned((640, 512), 0.1, 3)
    assert scan.revisit_s > 0
    scan.covered()
    assert scan.revisit_s == 0
    assert scan.tiles((640, 512), 3.04, 0.1, NOWHERE, NOWHERE) == [], "all was just seen"


def test_time_that_steps_back_and_another_size_begin_anew():
    scan, _ = scanned((640, 512), 0.5, 3)
    assert scan.tiles((640, 512), 0.0, 0.5, NOWHERE, NOWHERE) == []
    assert scan.tiles((320, 256), 0.1, 0.5, NOWHERE, NOWHERE) == []
    assert scan.tiles((320, 256), 0.2, 0.5, NOWHERE, NOWHERE)
