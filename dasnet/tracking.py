"""Detections over time in, tracks out; and whole recordings."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from dasnet.detector import Detections
from model import Engine, load
from model.metadata import BandThresholds
from pipeline.capture.recordings import open_recording
from pipeline.checkpoints import checkpoint_path
from pipeline.imaging.band import band_of
from pipeline.segmentation.segmenter import Segmenter
from pipeline.tracking.stage import TrackStage
from pipeline.types import Band, Frame, FrameRef, Track


class Tracker:
    """Tracks targets through the frames of one video."""

    def __init__(self, thresholds: BandThresholds | None = None) -> None:
        """Start without tracks.

        Args:
            thresholds: by band, of a checkpoint's metadata; None: the shipped checkpoint's.
        """
        if thresholds is None:
            from model.description import read_thresholds

            thresholds = read_thresholds(checkpoint_path(None))
        self._stage = TrackStage(thresholds)
        self._frames = 0

    def update(self, detections: Detections, time_s: float) -> list[Track]:
        """Return all tracks at this frame, including those that were lost with it.

        Args:
            detections: of the frame, from `Detector.detect`.
            time_s: when the frame was taken, in seconds; later than the frame before.
        """
        ref = FrameRef("video", "", self._frames, time_s, round(time_s * 1e9), round(time_s * 1e9))
        self._frames += 1
        return self._stage.update(replace(detections.raw, ref=ref)).tracks


def replay(
    path: str | Path, checkpoint: str | Path | None = None, device: str = "auto", band: str = "auto"
) -> Iterator[tuple[Frame, list[Track]]]:
    """Yield every frame of a recording with all tracks at it, as `dasnet replay` computes them.

    Args:
        path: a video, a folder of numbered images, or one image.
        checkpoint: see `Detector`.
        device: see `Detector`.
        band: `infrared`, `visible`, or `auto`: infrared where the frames have no colour.

    Raises:
        SourceError: the recording cannot be read, or not to its end.
    """
    loaded = load(checkpoint_path(Path(checkpoint) if checkpoint else None))
    source = open_recording(Path(path))
    with Engine(loaded, device=device) as engine:
        segmenter = Segmenter(engine)
        stage = TrackStage(segmenter.thresholds)
        known: Band | None = None
        try:
            for decoded in source.frames():
                known = known or band_of(decoded.pixels, band)
                time_ns = round(decoded.pts_s * 1e9)
                ref = FrameRef(Path(path).stem, "", decoded.number, decoded.pts_s, time_ns, time_ns)
                frame = Frame(ref, known, decoded.pixels)
                for detections in segmenter.finish(segmenter.submit([frame])):
                    yield frame, stage.update(detections).tracks
        finally:
            source.close()
