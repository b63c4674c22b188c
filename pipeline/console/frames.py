"""Recent frames of every camera, from the live messages of the track worker.

Keeps the newest LiveFrame per camera, and recent JPEGs by sequence number, so that a browser can fetch the image that
belongs to the tracks it has received.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pipeline.errors import WireError
from pipeline.transport.live import LiveFrame, decode

KEPT_IMAGES = 30  # per camera


@dataclass
class CameraFrames:
    """Recent frames of one camera."""

    newest: LiveFrame | None = None
    images: OrderedDict[int, bytes] = field(default_factory=OrderedDict)  # of the newest frame's session

    def put(self, frame: LiveFrame, jpeg: bytes) -> None:
        """Add a frame; `jpeg` is empty where it has no image."""
        if self.newest is not None and self.newest.session != frame.session:
            self.images.clear()  # sequence numbers restart
        self.newest = frame
        if jpeg:
            self.images[frame.seq] = jpeg
            while len(self.images) > KEPT_IMAGES:
                self.images.popitem(last=False)


class LiveFrames:
    """Recent frames of all cameras; unknown cameras are rejected, which bounds the memory."""

    def __init__(self, cameras: Iterable[str]) -> None:
        self.cameras: dict[str, CameraFrames] = {}
        self.set_cameras(cameras)
        self.received = 0
        self.refused = 0

    def set_cameras(self, cameras: Iterable[str]) -> None:
        """Set the cameras of the site, and drop the frames of others."""
        self.cameras = {camera: self.cameras.get(camera, CameraFrames()) for camera in cameras}

    def receive(self, message: Sequence[bytes]) -> tuple[LiveFrame, bool]:
        """Decode and store a live message.

        Returns:
            The frame, and whether it has an image.

        Raises:
            WireError: The message is malformed, or of an unknown camera.
        """
        try:
            frame, jpeg = decode(message)
            if frame.camera not in self.cameras:
                raise WireError(f"live frame of unknown camera {frame.camera!r}")
        except WireError:
            self.refused += 1
            raise
        self.received += 1
        self.cameras[frame.camera].put(frame, jpeg)
        return frame, bool(jpeg)

    def image(self, camera: str, seq: int, session: str | None) -> bytes | None:
        """Return the JPEG of a frame, or None where it is not kept; `session` defaults to the newest frame's."""
        frames = self.cameras.get(camera)
        if frames is None or frames.newest is None or session not in (None, frames.newest.session):
            return None
        return frames.images.get(seq)
