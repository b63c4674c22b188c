"""The newest frame of every camera, and its last pictures.

In: the live messages of the track worker.  Out: per camera the newest LiveFrame, and the JPEGs of the last frames by
sequence number, so that a browser can fetch the very picture that belongs to the tracks it was told.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pipeline.errors import WireError
from pipeline.transport.live import LiveFrame, decode

KEPT_PICTURES = 30  # of each camera


@dataclass
class CameraFrames:
    newest: LiveFrame | None = None
    pictures: OrderedDict[int, bytes] = field(default_factory=OrderedDict)  # of the newest frame's session

    def put(self, frame: LiveFrame, jpeg: bytes) -> None:
        if self.newest is not None and self.newest.session != frame.session:
            self.pictures.clear()  # sequence numbers begin again
        self.newest = frame
        if jpeg:
            self.pictures[frame.seq] = jpeg
            while len(self.pictures) > KEPT_PICTURES:
                self.pictures.popitem(last=False)


class LiveFrames:
    """Of all cameras of the site; what is of no known camera is refused, so memory is bounded."""

    def __init__(self, cameras: Iterable[str]) -> None:
        self.cameras: dict[str, CameraFrames] = {}
        self.set_cameras(cameras)
        self.received = 0
        self.refused = 0

    def set_cameras(self, cameras: Iterable[str]) -> None:
        """The cameras of the site from now on; what is of others is forgotten."""
        self.cameras = {camera: self.cameras.get(camera, CameraFrames()) for camera in cameras}

    def receive(self, message: Sequence[bytes]) -> tuple[LiveFrame, bool]:
        """The frame, and whether a picture came with it.  Raises WireError for what is refused, and counts both."""
        try:
            frame, jpeg = decode(message)
            if frame.camera not in self.cameras:
                raise WireError(f"live frame of {frame.camera!r}, which is no camera of this site")
        except WireError:
            self.refused += 1
            raise
        self.received += 1
        self.cameras[frame.camera].put(frame, jpeg)
        return frame, bool(jpeg)

    def picture(self, camera: str, seq: int, session: str | None) -> bytes | None:
        """None: not, or no longer, there.  Without a session that of the newest frame is meant."""
        frames = self.cameras.get(camera)
        if frames is None or frames.newest is None or session not in (None, frames.newest.session):
            return None
        return frames.pictures.get(seq)
