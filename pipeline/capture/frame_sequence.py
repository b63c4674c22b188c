"""The frames of a camera's session: numbers and times that continue across reconnections, at a limited rate.  Pure.

In: the decoded frames of one connection after another.  Out: Frames with their references.
"""

from pipeline.capture.source import DecodedFrame
from pipeline.capture.timestamps import MIN_STEP_S
from pipeline.types import Band, Frame, FrameRef


class FrameSequence:
    """Numbers the frames of one session.

    Args:
        camera: id of the camera.
        session: id of the session.
        band: the camera's band.
        rate_fps: the highest frame rate that is passed on; None for all frames.
        started_ns: monotonic time at which the session started; times of a live camera count from here.
    """

    def __init__(self, camera: str, session: str, band: Band, rate_fps: float | None, started_ns: int) -> None:
        self.session = session
        self.last_pts_s = -1.0
        self._camera, self._band, self._started_ns = camera, band, started_ns
        self._period_s = 1 / rate_fps if rate_fps else 0.0
        self._next_number = 0
        self._offset_s: float | None = None
        self._next_s = 0.0

    @property
    def last_number(self) -> int:
        """Return the number of the newest frame; 0 before the first."""
        return max(0, self._next_number - 1)

    def reconnect(self) -> None:
        """Start another connection, whose own times start at 0 again."""
        self._offset_s, self._next_s = None, 0.0

    def skip(self, frames: int) -> None:
        """Keep the numbers of frames that could not be decoded free."""
        self._next_number += frames

    def frame(self, decoded: DecodedFrame, *, live: bool) -> Frame | None:
        """Return the session's frame, or None where the rate limit skips it.  A recording's frames keep its numbers."""
        if self._offset_s is None:
            elapsed_s = (decoded.received_mono_ns - self._started_ns) / 1e9 if live else 0.0
            self._offset_s = max(elapsed_s, self.last_pts_s + MIN_STEP_S) - decoded.pts_s
        pts_s = decoded.pts_s + self._offset_s
        if pts_s < self._next_s - self._period_s / 2:
            return None
        self._next_s = max(self._next_s + self._period_s, pts_s)
        number = self._next_number if live else decoded.number
        self._next_number, self.last_pts_s = number + 1, pts_s
        ref = FrameRef(
            camera=self._camera,
            session=self.session,
            seq=number,
            pts_s=pts_s,
            received_mono_ns=decoded.received_mono_ns,
            received_utc_ns=decoded.received_utc_ns,
            ntp_ns=decoded.ntp_ns,
        )
        return Frame(ref, self._band, decoded.pixels)
