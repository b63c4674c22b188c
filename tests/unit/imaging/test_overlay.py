"""What pictures show: confirmed tracks, of the rest what is probable; and the targets' own pixels as they are."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from support.events import track
from support.scenes import SURE_UAV, frame

from pipeline.imaging.overlay import draw
from pipeline.types import Detections, Track, TrackState

SKY = np.full((160, 200, 3), 90, np.uint8)
XYXY = (80.0, 70.0, 90.0, 80.0)


def seen(state: TrackState = TrackState.CONFIRMED, score: float = 0.9) -> Track:
    return msgspec.structs.replace(track(1), state=state, score=score, xyxy=XYXY, velocity_px_s=(0.0, 0.0))


def detected(score: float) -> Detections:
    return replace(
        frame(0, [(85, 75, 10, SURE_UAV)]), size_px=(200, 160), score=np.full(1, score, np.float32), masks=[]
    )


def is_marked(detections: Detections | None, tracks: list[Track], **options: float) -> bool:
    return bool((draw(SKY, detections, tracks, **options) != SKY).any())


@pytest.mark.parametrize(
    ("state", "score", "expected"),
    [
        (TrackState.CONFIRMED, 0.2, True),
        (TrackState.COASTING, 0.2, True),
        (TrackState.TENTATIVE, 0.6, True),
        (TrackState.TENTATIVE, 0.4, False),
        (TrackState.LOST, 0.9, False),
    ],
)
def test_tracks_are_drawn_once_confirmed_or_probable(state: TrackState, score: float, expected: bool) -> None:
    assert is_marked(None, [seen(state, score)]) == expected


def test_detections_without_a_track_are_drawn_from_a_least_score_on() -> None:
    assert is_marked(detected(0.6), []) and not is_marked(detected(0.4), [])
    assert is_marked(detected(0.4), [], least_score=0.0)


def test_only_what_is_confirmed_has_a_label() -> None:
    def marked_area(state: TrackState) -> int:
        return int((draw(SKY, None, [seen(state)]) != SKY).any(axis=2).sum())

    assert marked_area(TrackState.CONFIRMED) > 3 * marked_area(TrackState.TENTATIVE)


def test_the_targets_own_pixels_stay_and_so_does_the_input() -> None:
    before = SKY.copy()
    drawn = draw(SKY, None, [seen()])
    x0, y0, x1, y1 = map(int, XYXY)
    np.testing.assert_array_equal(drawn[y0:y1, x0:x1], SKY[y0:y1, x0:x1])
    np.testing.assert_array_equal(SKY, before)
