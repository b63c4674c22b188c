"""One id per target through gaps, jitter, crossings and frame rates; clutter and fixed objects are never confirmed."""

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from support.scenes import NO_NAMES, SURE_BIRD, SURE_UAV, UNSURE, Target, frame

from model.metadata import Thresholds
from pipeline.tracking.policy import Policy
from pipeline.tracking.tracker import Tracker
from pipeline.types import Detections, Track, TrackState


def tracker() -> Tracker:
    return Tracker("north", "s1", Thresholds(), policy=Policy(calibrated=True))


def follow(frames: Iterable[Detections]) -> list[list[Track]]:
    one = tracker()
    return [one.update(detections) for detections in frames]


def confirmed(history: list[list[Track]]) -> dict[int, list[Track]]:
    seen: dict[int, list[Track]] = {}
    for tracks in history:
        for track in tracks:
            if track.state is TrackState.CONFIRMED:
                seen.setdefault(track.id, []).append(track)
    return seen


def flight(seq: int, side: float = 8, speed_px_s: float = 270) -> Target:
    """9 px a frame at 30 frames/s: an 8 px target never overlaps itself."""
    return (20 + speed_px_s * seq / 30, 200 + 20 * math.sin(seq / 10), side, SURE_UAV)


def test_a_small_fast_target_keeps_one_id_and_is_confirmed_at_its_fourth_sighting():
    history = follow(frame(seq, [flight(seq)]) for seq in range(60))
    assert list(confirmed(history)) == [1]
    assert [tracks[0].state for tracks in history[:4]] == [TrackState.TENTATIVE] * 3 + [TrackState.CONFIRMED]
    last = history[-1][0]
    assert last.velocity_px_s[0] == pytest.approx(270, rel=0.1)
    assert (last.label, last.hits) == ("uav", 60)


@pytest.mark.parametrize("stride", [1, 2, 5])
def test_a_lower_frame_rate_gives_the_same_track(stride: int):
    history = follow(frame(seq, [flight(seq)]) for seq in range(0, 120, stride))
    assert list(confirmed(history)) == [1]


def test_at_a_low_frame_rate_three_detections_without_a_miss_confirm():
    history = follow(frame(seq, [flight(seq, speed_px_s=90)]) for seq in range(0, 60, 6))
    assert [tracks[0].state for tracks in history[:3]] == [TrackState.TENTATIVE] * 2 + [TrackState.CONFIRMED]
    missed = follow(frame(seq, [flight(seq, speed_px_s=90)] if seq != 6 else []) for seq in range(0, 60, 6))
    assert [tracks[0].state for tracks in missed[:5]] == [TrackState.TENTATIVE] * 4 + [TrackState.CONFIRMED]


def test_a_pan_that_is_reported_late_and_all_at_once_does_not_break_a_track():
    def panned(seq: int) -> Detections:
        shift = {24: 25.0}.get(seq, 0.0)  # of frames 20 to 24, 5 px each
        return frame(seq, [(100 + 3 * seq + 5 * min(max(seq - 19, 0), 5), 100, 12, SURE_UAV)], shift=(shift, 0.0))

    assert list(confirmed(follow(panned(seq) for seq in range(60)))) == [1]


def test_random_and_long_gaps_do_not_break_a_track():
    random = np.random.default_rng(1)
    kept = [seq for seq in range(150) if seq < 10 or (random.random() > 0.3 and not 60 <= seq < 80)]
    history = follow(frame(seq, [flight(seq, speed_px_s=90)]) for seq in kept)
    assert list(confirmed(history)) == [1]


def test_a_missed_target_coasts_for_a_bounded_time_and_is_lost_once():
    frames = [frame(seq, [flight(seq)] if seq < 20 else []) for seq in range(90)]
    states = [tracks[0].state if tracks else None for tracks in follow(frames)]
    assert states[20:40] == [TrackState.COASTING] * 20
    assert states.count(TrackState.LOST) == 1
    assert states[-1] is None


def test_a_detection_too_small_to_start_a_track_continues_a_confirmed_one():
    one = Tracker("north", "s1", Thresholds(min_area_px=6, continue_area_ratio=0.5))
    sizes = [2] * 20 + [3] * 8 + [2] * 20  # 4, 9 and 4 px
    history = [one.update(frame(seq, [flight(seq, side, 60)])) for seq, side in enumerate(sizes)]
    assert history[:20] == [[]] * 20
    (track,) = confirmed(history).values()
    assert [seen.last_seen.seq for seen in track] == list(range(23, 48))
    tentative = Tracker("north", "s1", Thresholds(min_area_px=6, continue_area_ratio=0.5))
    assert not confirmed([tentative.update(frame(seq, [flight(seq, 3 if seq < 3 else 2, 60)])) for seq in range(30)])


def test_an_improbable_detection_starts_no_track_and_continues_a_confirmed_one():
    def scored(seq: int, score: float) -> Detections:
        return replace(frame(seq, [flight(seq, speed_px_s=60)]), score=np.full(1, score, np.float32))

    one = Tracker("north", "s1", Thresholds(start_score=0.4))
    history = [one.update(scored(seq, 0.9 if 20 <= seq < 28 else 0.2)) for seq in range(48)]
    assert history[:20] == [[]] * 20
    (track,) = confirmed(history).values()
    assert [seen.last_seen.seq for seen in track] == list(range(23, 48))


def test_a_small_detection_that_moves_starts_a_track():
    def moving(seq: int, motion_score: float) -> Detections:
        return replace(frame(seq, [flight(seq, 2, 60)]), motion_score=np.full(1, motion_score, np.float32))

    for motion_score, is_started in ((6.0, True), (0.0, False)):
        one = Tracker("north", "s1", Thresholds(min_area_px=6))
        assert bool(confirmed([one.update(moving(seq, motion_score)) for seq in range(20)])) == is_started


def test_crossing_targets_keep_their_ids():
    def pair(seq: int) -> list[Target]:
        return [(50 + 6 * seq, 100 + 2 * seq, 10, SURE_UAV), (50 + 6 * seq, 220 - 2 * seq, 10, SURE_BIRD)]

    history = follow(frame(seq, pair(seq)) for seq in range(60) if seq % 7)
    tracks = confirmed(history)
    assert len(tracks) == 2
    assert {states[-1].label for states in tracks.values()} == {"uav", "bird"}
    for states in tracks.values():
        assert len({track.label for track in states[5:]}) == 1


@pytest.mark.parametrize("stride", [1, 6])
def test_scattered_clutter_is_never_confirmed(stride: int):
    random = np.random.default_rng(2)

    def clutter() -> list[Target]:
        points = random.uniform((0, 0), (640, 512), (random.poisson(0.5), 2))
        return [(x, y, 6, SURE_UAV) for x, y in points]

    assert not confirmed(follow(frame(seq * stride, clutter()) for seq in range(3000)))


def test_a_fixed_object_is_not_confirmed_but_a_target_that_arrives_and_hovers_is():
    random = np.random.default_rng(3)

    def lamp() -> Target:
        return (300 + random.normal(0, 0.3), 100 + random.normal(0, 0.3), 12, SURE_UAV)

    assert not confirmed(follow(frame(seq, [lamp()]) for seq in range(600)))
    arrival = [frame(seq, [(100 + 4 * min(seq, 30), 100, 12, SURE_UAV)]) for seq in range(600)]
    history = follow(arrival)
    assert history[-1][0].state is TrackState.CONFIRMED and history[-1][0].is_target


def test_what_noise_moved_at_first_and_clouds_drift_past_is_fixed():
    """A dead pixel: its first box is 2 px off, and the sky, which is all the background there is, drifts."""
    frames = [frame(seq, [(300 + 2 * (seq < 2), 100, 6, SURE_UAV)], shift=(-0.004, 0.0)) for seq in range(1800)]
    history = follow(frames)
    assert confirmed(history), "it is kept, as clutter"
    assert not any(track.is_target for tracks in history[45:] for track in tracks)


def test_dirt_on_the_lens_before_drifting_clouds_is_clutter_and_a_slow_target_there_is_not():
    random = np.random.default_rng(5)
    drift = (0.05, 0.0)  # 1.5 px a second: in time it is more than noise explains

    def at(x: float) -> Target:
        return (x + random.normal(0, 0.4), 380 + random.normal(0, 0.8), 5, SURE_UAV)

    dirt = follow(frame(seq, [at(564)], shift=drift) for seq in range(1200))
    assert not any(track.is_target for tracks in dirt for track in tracks if track.state is TrackState.CONFIRMED)
    slow = follow(frame(seq, [at(564 - seq * 6 / 30)], shift=drift) for seq in range(600))
    assert all(track.is_target for track in slow[-1]) and confirmed(slow)


@pytest.mark.parametrize(("size_px", "is_moving"), [((640, 512), True), ((1920, 1080), False)])
def test_a_shift_within_the_error_of_camera_motion_is_no_movement(size_px: tuple[int, int], is_moving: bool):
    steps = (frame(seq, [(300 + min(seq, 4), 100, 12, SURE_UAV)]) for seq in range(60))
    assert bool(confirmed(follow(replace(one, size_px=size_px) for one in steps))) == is_moving


def test_a_target_followed_by_a_moving_camera_is_confirmed():
    """It does not move in the image, but the background does."""
    history = follow(frame(seq, [(320, 256, 14, SURE_UAV)], shift=(-5.0, 0.0)) for seq in range(30))
    assert confirmed(history)
    lamp = [frame(seq, [(600 - 5.0 * seq, 256, 14, SURE_UAV)], shift=(-5.0, 0.0)) for seq in range(60)]
    assert not confirmed(follow(lamp))


@pytest.mark.parametrize("shift", [None, (0.0, 0.0)])
def test_a_camera_that_turns_in_jerks_before_a_plain_sky_breaks_no_track(shift: tuple[float, float] | None):
    places = [(320 + 2 * seq - 70 * (seq // 12 % 2), 250 + 30 * (seq // 17 % 2)) for seq in range(120)]
    history = follow(frame(seq, [(*place, 20, SURE_UAV)], shift=shift) for seq, place in enumerate(places))
    assert list(confirmed(history)) == [1] and len(confirmed(history)[1]) == 117


@pytest.mark.parametrize(("side", "distance_px"), [(40, 60), (20, 130)])
def test_what_is_unlike_a_lost_target_or_far_from_it_is_another_one(side: float, distance_px: float):
    first = [frame(seq, [flight(seq, 20, 30)]) for seq in range(30)]
    x, y, *_ = flight(30, 20, 30)
    then = [frame(30 + seq, [(x + distance_px, y + seq, side, SURE_UAV)]) for seq in range(30)]
    assert list(confirmed(follow([*first, *then]))) == [1, 2]


@pytest.mark.parametrize(("amplitude_px", "is_target"), [(0.5, False), (4, True)])
def test_what_stays_on_the_screen_where_the_camera_motion_is_unknown_is_fixed(amplitude_px: float, is_target: bool):
    """As a dead pixel before a plain sky; a target that a camera follows keeps moving a little."""
    places = [(320 + amplitude_px * math.sin(seq / 3), 256) for seq in range(60)]
    history = follow(frame(seq, [(*place, 14, SURE_UAV)], shift=None) for seq, place in enumerate(places))
    assert bool(confirmed(history)) == is_target


def label(scores: list[tuple[float, ...]], speed_px_s: float = 90) -> str:
    """Return the final label of a target with these class scores per frame."""
    frames = (frame(seq, [(*flight(seq, speed_px_s=speed_px_s)[:3], s)]) for seq, s in enumerate(scores))
    return follow(frames)[-1][0].label


def odds(evidence: float) -> tuple[float, ...]:
    """Return class scores with this log-odds difference between uav and bird."""
    return (1 / (1 + math.exp(-evidence)), 0.5, 0.1, 0.1)


def test_the_label_of_an_approaching_target_is_revised_within_seconds():
    """Evidence decays within 2.5 s; summed over the whole track, the label would change only after 5 s."""
    assert label([SURE_BIRD] * 150 + [SURE_UAV] * 15) == "bird"
    assert label([SURE_BIRD] * 150 + [SURE_UAV] * 75) == "uav"


def test_evidence_decays_with_time_not_with_frames():
    history = follow(frame(n, [(20 + 4 * n, 200, 12, SURE_BIRD if n < 20 else SURE_UAV)], n / 4) for n in range(32))
    assert history[19][0].label == "bird" and history[31][0].label == "uav"


def test_suppressing_a_reported_track_takes_more_evidence():
    """The threshold for suppression is -0.8; for a track that raised an alert -2.8, or its label would flicker."""
    assert label([odds(-1.3)] * 90) == "bird"
    assert label([odds(0.0)] * 30 + [odds(-2.5)] * 120) == "unknown"
    assert label([odds(0.0)] * 30 + [odds(-3.5)] * 120) == "bird"


def test_labels_follow_the_evidence():
    assert label([SURE_BIRD] * 30) == "bird"
    assert label([SURE_UAV] * 30) == "uav"
    assert label([UNSURE] * 30) == "unknown"
    assert label([SURE_BIRD] * 3 + [SURE_UAV] * 27) == "uav"


def test_detections_that_were_not_classified_add_no_evidence():
    assert label([NO_NAMES] * 30) == "unknown"
    assert label([SURE_BIRD] * 5 + [NO_NAMES] * 60) == "bird"
    assert label([SURE_BIRD] * 60 + [NO_NAMES] * 150 + [SURE_UAV] * 10) == "uav"  # its evidence has decayed


def test_repeated_or_earlier_times_are_ignored_and_a_large_jump_resets_the_tracker():
    one = tracker()
    for seq in range(20):
        one.update(frame(seq, [flight(seq)]))
    assert one.update(frame(20, [flight(20)], pts_s=19 / 30)) == []
    assert one.update(frame(21, [flight(21)]))[0].hits == 21
    after = one.update(frame(22, [flight(22)], pts_s=100.0))
    assert [(track.id, track.state) for track in after] == [(2, TrackState.TENTATIVE), (1, TrackState.LOST)]


def test_ids_are_the_same_every_time_and_differ_between_sessions_and_cameras():
    def ulid(camera: str, session: str) -> str:
        one = Tracker(camera, session, Thresholds())
        return one.update(frame(0, [flight(0)], camera=camera, session=session))[0].ulid

    assert ulid("a", "s") == ulid("a", "s")
    assert len({ulid("a", "s"), ulid("b", "s"), ulid("a", "t")}) == 3


@pytest.mark.parametrize("pan_px", [0.0, 1.5])
def test_how_a_target_moves_adds_to_the_evidence_for_uav(pan_px: float):
    """The class scores are undecided, and a camera that pans by a known number of pixels a frame changes nothing."""

    def uav(speed_px: float, radius_px: float, shift: tuple[float, float] | None = (pan_px, 0.0)) -> float:
        frames = []
        for seq in range(120):
            angle = 2 * math.pi * seq / 90
            x = 100 + (speed_px + pan_px) * seq + radius_px * math.sin(angle)
            frames.append(frame(seq, [(x, 200 + radius_px * math.cos(angle), 12, odds(0.0))], shift=shift))
        return follow(frames)[-1][0].evidence["uav"]

    assert uav(speed_px=0, radius_px=25) > 0.5
    assert -0.7 < uav(speed_px=2, radius_px=0) < -0.2
    assert uav(speed_px=0, radius_px=25, shift=None) == 0  # its motion against the background is unknown
