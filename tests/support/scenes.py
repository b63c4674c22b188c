"""Detections made by hand, for the tests of tracking and alerting."""

from collections.abc import Sequence

import numpy as np

from pipeline.types import Band, Detections, FrameRef, Mask

CLASSES = ("uav", "bird", "airplane", "helicopter")
SURE_UAV = (0.9, 0.05, 0.05, 0.05)
SURE_BIRD = (0.05, 0.9, 0.05, 0.05)
UNSURE = (0.5, 0.5, 0.4, 0.3)
NO_NAMES = (0.0, 0.0, 0.0, 0.0)

Target = tuple[float, float, float, Sequence[float]]  # centre x, y, side, class scores


def frame(
    seq: int,
    targets: Sequence[Target],
    pts_s: float | None = None,
    shift: tuple[float, float] | None = (0.0, 0.0),
    camera: str = "north",
    session: str = "s1",
    band: Band = Band.VISIBLE,
) -> Detections:
    pts_s = seq / 30 if pts_s is None else pts_s
    time_ns = round(pts_s * 1e9)
    n = len(targets)
    return Detections(
        ref=FrameRef(camera, session, seq, pts_s, time_ns, 1_700_000_000_000_000_000 + time_ns),
        band=band,
        size_px=(640, 512),
        classes=CLASSES,
        xyxy=np.array([(x - s / 2, y - s / 2, x + s / 2, y + s / 2) for x, y, s, _ in targets], np.float32).reshape(
            n, 4
        ),
        score=np.full(n, 0.9, np.float32),
        mask_score=np.full(n, 0.9, np.float32),
        motion_score=np.zeros(n, np.float32),
        novelty=np.full(n, 0.5, np.float32),
        class_scores=np.array([scores for *_, scores in targets], np.float32).reshape(n, len(CLASSES)),
        area_px=np.array([s * s for _, _, s, _ in targets], np.float32),
        centroid=np.array([(x, y) for x, y, *_ in targets], np.float32).reshape(n, 2),
        masks=[
            Mask.pack(round(x - s / 2), round(y - s / 2), np.ones((round(s), round(s)), bool)) for x, y, s, _ in targets
        ],
        camera_shift_px=shift,
    )
