"""The segmenter's motion and judge: targets without a mask, bounded work, and each camera's own state."""

import gc
import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import astuple, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.moving_scenes import CLOUDS, Blob, Scene, at_rate

from model.judge import Verdicts
from model.metadata import Fusion, JudgeConfig, Metadata, Preprocessing
from pipeline.segmentation.proposals import iou
from pipeline.segmentation.segmenter import CameraView, Segmenter
from pipeline.transport.payloads import detections_of, result_message
from pipeline.transport.wire import Stamps, decode
from pipeline.types import Band, Detections, Frame, FrameRef

JUDGE = JudgeConfig(fusion=Fusion(min_score=0.5))
DRONE = Blob(30, 60, (40, 10), (8, 6))
SKY = Scene([DRONE], texture=CLOUDS)


class StandIn:
    """An engine whose network finds nothing, and whose judge calls a target what stands out from its chip by 20."""

    metadata = Metadata(judge=JUDGE)
    device = SimpleNamespace(type="cpu")
    max_in_flight = 1

    def __init__(self) -> None:
        self.judged: list[int] = []  # chips of each frame that had some

    def submit(self, images: np.ndarray) -> "Future[Any]":
        future: Future[Any] = Future()
        future.set_result(np.zeros((len(images), 1, *images.shape[1:3]), np.float32))
        return future

    def judge(self, chips: np.ndarray) -> Verdicts:
        self.judged.append(len(chips))
        newest = chips[:, 0].astype(np.float32)
        contrast = newest[:, 23:25, 23:25].mean((1, 2)) - np.median(newest, axis=(1, 2))
        log_odds = np.where(np.abs(contrast) > 20, 4, -4).astype(np.float32)
        classes = np.full((len(chips), len(JUDGE.classes)), 1 / len(JUDGE.classes), np.float32)
        return Verdicts(log_odds, classes, np.ones(len(chips), np.float32))


def frames_of(
    scene: Scene, times_s: Sequence[float], camera: str = "north", session: str = "s", band: Band = Band.VISIBLE
) -> list[Frame]:
    return [
        Frame(FrameRef(camera, session, seq, pts_s, round(pts_s * 1e9), 0), band, pixels)
        for seq, (pixels, pts_s, _) in enumerate(scene.frames(times_s))
    ]


def finished(segmenter: Segmenter, frames: Iterable[Frame]) -> list[Detections]:
    return [found for frame in frames for found in segmenter.finish(segmenter.submit([frame]))]


def rows(found: Iterable[Detections]) -> list[Any]:
    """Return all that is said of each frame, comparable."""
    return [[np.asarray(each).tolist() for each in astuple(one)[4:12]] for one in found]


def test_what_flies_is_detected_without_a_mask_in_a_tight_box():
    found = finished(Segmenter(StandIn()), frames_of(SKY, at_rate(25, 2)))
    assert all(len(one) == 0 for one in found[:4])
    for one in found[18:]:
        assert len(one) == 1 and one.mask_score[0] == 0 and one.motion_score[0] > 8 and one.novelty[0] == 1
        assert one.score[0] == pytest.approx(1 / (1 + np.exp(-4))) and one.classes == JUDGE.classes
        assert iou(one.xyxy[0], DRONE.box(*SKY.place(DRONE, one.ref.pts_s))) > 0.6


def test_what_stops_in_the_air_is_still_expected_there():
    class Stopping(Scene):
        def place(self, blob: Blob, time_s: float) -> tuple[float, float]:
            return super().place(blob, min(time_s, 1.2))

    scene = Stopping([DRONE], texture=CLOUDS, noise=1)
    found = finished(Segmenter(StandIn()), frames_of(scene, at_rate(25, 4)))
    for one in found[18:]:
        boxes = [iou(box, DRONE.box(*scene.place(DRONE, one.ref.pts_s))) for box in one.xyxy]
        assert max(boxes, default=0) > 0.6
    assert found[-1].motion_score[0] == 0, "the judge was sent there, not motion"


def test_a_checkpoint_without_a_judge_has_the_masks_alone():
    class Plain(StandIn):
        metadata, judge = Metadata(), None  # type: ignore[assignment]

    segmenter = Segmenter(Plain())
    assert all(len(one) == 0 for one in finished(segmenter, frames_of(SKY, at_rate(25, 1))))
    assert segmenter.usual_noise("north") is None


@pytest.mark.parametrize("most", [1, 5])
def test_the_work_of_a_frame_is_bounded(most: int):
    crowd = Scene([Blob(16 + 26 * column, 14 + 25 * row, (25, 10)) for column in range(5) for row in range(4)])
    engine = StandIn()
    finished(Segmenter(engine, max_judged=most), frames_of(crowd, at_rate(25, 1)))
    assert max(engine.judged) == most and len(engine.judged) > 15


def test_only_the_watched_part_of_the_view_has_detections():
    scene = Scene([Blob(20, y, (50, 0)) for y in (20, 60, 100)], texture=CLOUDS)
    mast = [(70, 0), (90, 0), (90, 128), (70, 128)]
    view = CameraView(region=(0, 40, 160, 128), ignore=[mast])
    found = finished(Segmenter(StandIn(), views={"north": view}), frames_of(scene, at_rate(25, 2.4)))
    places = np.concatenate([one.centroid for one in found])
    assert len(places) > 60 and (places[:, 1] > 40).all()
    assert not ((places[:, 0] > 71) & (places[:, 0] < 89)).any()
    assert ((places[:, 0] > 95) & (places[:, 1] < 80)).any(), "it is found again behind the mast"


def test_cameras_know_nothing_of_each_other():
    west = Scene([Blob(120, 30, (-30, 15), contrast=-60)], texture=CLOUDS, seed=4)
    streams = [frames_of(SKY, at_rate(25, 1.2)), frames_of(west, at_rate(25, 1.2), "west", "t")]
    alone = [rows(finished(Segmenter(StandIn()), stream)) for stream in streams]
    segmenter = Segmenter(StandIn())
    together: Mapping[str, list[Detections]] = {"north": [], "west": []}
    for pair in zip(*streams, strict=True):
        for one in segmenter.finish(segmenter.submit(pair)):
            together[one.ref.camera].append(one)
    assert [rows(found) for found in together.values()] == alone and any(alone[1][-1])


def test_a_new_session_begins_anew():
    segmenter = Segmenter(StandIn())
    for session in ("s", "t"):
        found = finished(segmenter, frames_of(SKY, at_rate(25, 1), session=session))
        assert [len(one) for one in found[:4]] == [0] * 4 and len(found[-1]) == 1


def test_a_fork_goes_on_from_where_its_camera_is_and_leaves_the_original_alone():
    frames = frames_of(SKY, at_rate(25, 1.6))
    segmenter, reference = Segmenter(StandIn()), Segmenter(StandIn())
    others = frames_of(SKY, at_rate(25, 0.4), "west")
    finished(segmenter, [*frames[:25], *others])
    finished(reference, frames[:25])
    fork = segmenter.fork("north")
    assert fork.usual_noise("west") is None and fork.usual_noise("north") is not None
    empty = [replace(frame, pixels=np.full_like(frame.pixels, 90)) for frame in frames[25:]]
    expected = rows(finished(reference, frames[25:]))
    assert rows(finished(fork, empty)) != expected
    assert rows(finished(segmenter.fork("north"), frames[25:])) == expected
    assert rows(finished(segmenter, frames[25:])) == expected


def test_the_usual_noise_is_learned_and_handed_over_at_each_sessions_start():
    noise = np.full((8, 10), 40, np.float32)
    views = {"north": CameraView(usual_noise=noise), "west": CameraView()}
    segmenter = Segmenter(StandIn(), views=views)
    assert segmenter.usual_noise("north") is None, "before the first frame"
    for session in ("s", "t"):
        found = finished(segmenter, frames_of(SKY, at_rate(25, 1.4), session=session))
        known = segmenter.usual_noise("north")
        assert known is not None and known.max() > 30
        assert all(len(one) == 0 for one in found), "a usual change is no news"
    finished(segmenter, frames_of(SKY, at_rate(25, 1), "west"))
    learned = segmenter.usual_noise("west")
    assert learned is not None and learned.shape == (32, 40) and 0 < learned.max() < 10
    assert segmenter.usual_noise("nowhere") is None


def test_cameras_that_are_no_longer_watched_are_forgotten_and_others_go_on():
    frames = frames_of(SKY, at_rate(25, 1.2))
    expected = rows(finished(Segmenter(StandIn()), frames))
    segmenter = Segmenter(StandIn(), views={"north": CameraView(), "west": CameraView()})
    finished(segmenter, [*frames[:20], *frames_of(SKY, at_rate(25, 0.8), "west")])
    segmenter.watch({"north": CameraView()})
    assert segmenter.usual_noise("west") is None
    assert rows(finished(segmenter, frames[20:])) == expected[20:]
    segmenter.watch({})
    assert segmenter.usual_noise("north") is None
    segmenter.watch({"north": CameraView(region=(0, 100, 160, 128))})
    assert all(len(one) == 0 for one in finished(segmenter, frames))


class Seeing(StandIn):
    """Its network sees what is bright."""

    metadata = Metadata(judge=JUDGE, preprocessing=Preprocessing(mode="scale"))

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def submit(self, images: np.ndarray) -> "Future[Any]":
        self.shapes.append(images.shape)
        future: Future[Any] = Future()
        future.set_result((images[..., 0] > 170).astype(np.float32)[:, None])
        return future


BRIGHT = Scene([Blob(60, 100, (60, 20), (8, 6), contrast=110)], texture=CLOUDS, size_px=(480, 360))


def test_the_reduced_frame_is_looked_at_ten_times_a_second():
    engine = Seeing()
    finished(Segmenter(engine), frames_of(BRIGHT, at_rate(25, 2), band=Band.INFRARED))
    whole, reduced = (1, 360, 480, 3), (1, 120, 160, 3)
    assert engine.shapes.count(whole) == 51 and engine.shapes.count(reduced) == 17 == len(engine.shapes) - 51


def test_the_reduced_frame_is_looked_at_as_soon_as_the_view_has_changed():
    frames = frames_of(BRIGHT, at_rate(25, 0.36), band=Band.INFRARED)
    for number in range(4, 9):
        frames[number] = replace(frames[number], pixels=frames[number].pixels[::-1].copy())
    engine = Seeing()
    segmenter = Segmenter(engine)
    looked = []
    for one in frames:
        engine.shapes.clear()
        segmenter.finish(segmenter.submit([one]))
        looked.append((1, 120, 160, 3) in engine.shapes)
    assert looked == [True, False, False, True, False, True, False, False, True, False]


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_with_a_share_of_the_pixels_a_target_keeps_its_mask_score_between_inferences(share: float):
    engine = Seeing()
    segmenter = Segmenter(engine)
    segmenter.share = share
    found = finished(segmenter, frames_of(BRIGHT, at_rate(25, 3), band=Band.INFRARED))
    seen_px = sum(np.prod(shape[:3]) for shape in engine.shapes if shape[1] <= 128 and shape[2] <= 128)
    assert seen_px < share * 75 * 480 * 360 + 2 * 128**2
    assert not any(shape[1:3] == (360, 480) for shape in engine.shapes), "never the whole frame"
    for one in found[25:]:
        place = BRIGHT.place(BRIGHT.blobs[0], one.ref.pts_s)
        on_target = np.abs(one.centroid - place).max(axis=1) < 6
        assert on_target.sum() == 1 and one.mask_score[on_target].max() >= 0.5
    assert sum(bool(one.masks[0].width > 0) for one in found[25:] if len(one)) == len(found[25:]), "all have outlines"
    assert segmenter.revisit_s("north") < 5 and segmenter.revisit_s("nowhere") == 0


def test_a_target_that_is_no_longer_segmented_where_the_network_runs_is_forgotten():
    class Dying(Seeing):
        def submit(self, images: np.ndarray) -> "Future[Any]":
            future = super().submit(images)
            if len(self.shapes) > 40:
                future.result()[:] = 0
            return future

    found = finished(Segmenter(Dying()), frames_of(BRIGHT, at_rate(25, 3), band=Band.INFRARED))
    assert found[10].mask_score.max() == 1
    assert all(not (one.mask_score > 0).any() for one in found[-20:])


SHAPES: list[tuple[int, ...]] = [(8, 8), (8, 8, 3), (1, 1), (20, 1), (1, 20), (16, 200), (128, 160, 3), (96, 128)]


@pytest.mark.parametrize("band", list(Band))
def test_frames_of_any_size_in_one_session_give_valid_detections(band: Band):
    segmenter, random = Segmenter(StandIn()), np.random.default_rng(0)
    count = 0
    for number in range(12 * len(SHAPES)):
        pixels = random.integers(0, 256, SHAPES[number // 12], np.uint8)
        ref = FrameRef("north", "s", number, number / 12, round(number / 12 * 1e9), 0)
        (found,) = finished(segmenter, [Frame(ref, band, pixels)])
        message, _ = decode(result_message(found, Stamps(), b""))
        assert rows([detections_of(message)]) == rows([found])  # type: ignore[arg-type]
        assert (found.xyxy >= -1).all() and (found.xyxy[:, 2:] <= np.array(found.size_px) + 1).all()
        count += len(found)
    assert count > 20


def test_a_finished_batch_is_freed_at_once() -> None:
    """Not only by garbage collection: frames and maps of minutes would wait for that."""

    class Later(StandIn):
        def submit(self, images: np.ndarray) -> "Future[Any]":
            waiting: Future[Any] = Future()
            threading.Timer(0.01, waiting.set_result, [super().submit(images).result()]).start()
            return waiting

    segmenter = Segmenter(Later())  # type: ignore[arg-type]
    (frame,) = frames_of(SKY, [0.0])
    gc.collect()
    gc.disable()
    try:
        batch = segmenter.submit([frame])
        segmenter.finish(batch)
        assert batch.inferred_ns >= batch.started_ns > 0
        futures = [weakref.ref(one.maps) for one in batch.inferences[0]]
        del batch
        assert [future() for future in futures] == [None]
    finally:
        gc.enable()
