"""annotated.mp4: the recording with masks, boxes and labels."""

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.container import OutputContainer
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream
from numpy.typing import NDArray

from pipeline.replay.output_file import OutputFile

VIDEO_CLOCK = Fraction(1, 90_000)
VIDEO_OPTIONS = {"crf": "20", "preset": "veryfast", "threads": "1"}  # one thread: the same bytes each time


class VideoWriter(OutputFile):
    """Writes annotated.mp4: H.264, each image at its own time from the first on.  Without images there is no file."""

    def __init__(self, path: Path, fps: float | Fraction | None) -> None:
        """Open the file; `fps` is that of the source, for the encoder and the last image's duration, or None."""
        super().__init__(path)
        self._rate = Fraction(fps or 25).limit_denominator(1001)
        self._open: tuple[OutputContainer, VideoStream] | None = None
        self._first_s, self._last_pts = 0.0, -1

    def write(self, image: NDArray[np.uint8], pts_s: float) -> None:
        """Append an image, HxWx3 RGB.  The first one's size is that of the video; others are resized to it."""
        height, width = image.shape[:2]
        if self._open is None:
            self._first_s, self._open = pts_s, self._start(width + width % 2, height + height % 2)
        container, stream = self._open
        if (stream.width - width, stream.height - height) in ((0, 0), (0, 1), (1, 0), (1, 1)):
            image = np.pad(image, ((0, stream.height - height), (0, stream.width - width), (0, 0)), mode="edge")
        else:
            image = np.asarray(cv2.resize(image, (stream.width, stream.height)), np.uint8)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
        self._last_pts = max(round((pts_s - self._first_s) / VIDEO_CLOCK), self._last_pts + 1)
        frame.pts, frame.time_base = self._last_pts, VIDEO_CLOCK
        frame.duration = round(1 / (self._rate * VIDEO_CLOCK))
        container.mux(stream.encode(frame))

    def _start(self, width_px: int, height_px: int) -> tuple[OutputContainer, VideoStream]:
        url = f"file:{self._partial.resolve()}"  # otherwise FFmpeg takes what precedes a colon for a protocol
        container = av.open(url, "w", format="mp4", options={"movflags": "+faststart", "fflags": "+bitexact"})
        stream = container.add_stream("libx264", rate=self._rate, options=VIDEO_OPTIONS)
        stream.width, stream.height, stream.pix_fmt = width_px, height_px, "yuv420p"  # which needs even sizes
        stream.codec_context.time_base = VIDEO_CLOCK
        stream.codec_context.colorspace, stream.codec_context.color_range = Colorspace.ITU709, ColorRange.MPEG
        return container, stream

    def close(self) -> None:
        """Finish the file, or remove that of an earlier replay if there was no image."""
        if self._last_pts < 0:
            self._path.unlink(missing_ok=True)
        if self._open is None:
            return
        (container, stream), self._open = self._open, None
        try:
            container.mux(stream.encode(None))
        finally:
            container.close()
        self._partial.replace(self._path)
