"""Still images of a replay: the frame of each alert, `alerts/<alert>.jpg`, and one without marks, `still.jpg`.

In: frames, their Detections, tracks and events.  Out: JPEG files.  The report draws the tracks' paths over them.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.imaging.overlay import draw
from pipeline.replay.output_file import partial
from pipeline.types import Detections, Event, EventKind, Frame, Track

ALERTS, STILL = "alerts", "still.jpg"
MAX_WIDTH_PX = 1280
QUALITY = 85


class Stills:
    """Writes the stills of one input into its folder.

    The one without marks is the frame in which the first alert was opened; without an alert, that of the first track.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rank = 0  # of the still that is written: 0 none, 1 of a track, 2 of an alert

    def clear(self) -> None:
        """Remove the stills of an earlier replay."""
        (self._folder / STILL).unlink(missing_ok=True)
        shutil.rmtree(self._folder / ALERTS, ignore_errors=True)

    def update(self, frame: Frame, detections: Detections, tracks: Sequence[Track], events: Sequence[Event]) -> None:
        """Write what a frame's events ask for."""
        for event in events:
            opens = event.kind is EventKind.ALERT_OPENED
            if opens and event.alert is not None:
                enlarge = 2 if frame.size_px[0] <= MAX_WIDTH_PX // 2 else 1
                marked = draw(frame.pixels, detections, tracks, scale=enlarge)
                _write(self._folder / ALERTS / f"{event.alert}.jpg", marked)
            rank = 2 if opens else int(event.kind in (EventKind.TRACK_CONFIRMED, EventKind.TRACK_LABELLED))
            if rank > self._rank:
                self._rank = rank
                _write(self._folder / STILL, frame.pixels)


def _write(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write an image, HxWx3 RGB or HxW, in at most MAX_WIDTH_PX."""
    colours = pixels if pixels.ndim == 3 else np.stack([pixels] * 3, axis=2)
    height, width = colours.shape[:2]
    if width > MAX_WIDTH_PX:
        size = (MAX_WIDTH_PX, max(1, round(height * MAX_WIDTH_PX / width)))
        colours = np.asarray(cv2.resize(colours, size, interpolation=cv2.INTER_AREA), np.uint8)
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(colours, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    path.parent.mkdir(parents=True, exist_ok=True)
    partial(path).write_bytes(jpeg.tobytes())
    partial(path).replace(path)
