"""Whose frame is searched next: cameras take turns, and credit is given when the device is about to be free.  Pure.

A camera whose frame waits asks for credit.  There are as many places as the next batch holds; who has waited longest is
given one, and sends the newest frame that it then has.  So no more frames are here than the device takes next, each of
them young, and no camera is served twice while another waits.  Where the device takes several batches at once, a camera
may have as many frames here, one in each.
"""

from collections import deque
from collections.abc import Container, Iterator
from dataclasses import dataclass, field

from pipeline.transport.sockets import Socket
from pipeline.transport.wire import Stamps
from pipeline.types import Frame, FrameRef

GRANT_S = 0.1  # a place is kept so long for a frame that does not come


@dataclass(eq=False)
class Camera:
    """One capture worker's session."""

    name: str
    door: Socket  # where it comes in: from this host, or from others
    identity: bytes  # its address there
    session: str
    waiting: tuple[Frame, Stamps] | None = None
    flying: int = 0  # frames of it that are with the device
    newest: int = -1  # of its frames that came, the sequence number
    asks: bool = False  # for credit, with a frame that waits at its end
    granted: bool = False  # it may send a frame
    place_s: float = 0.0  # since when a place is kept for that; 0: none is, there was room for all
    ended: bool = False  # it was a recording, of which no more will come
    preview_s: float = 0.0  # when a picture of it was last made for people

    def is_of(self, door: Socket, identity: bytes, session: str) -> bool:
        return (self.door, self.identity, self.session) == (door, identity, session)

    @property
    def is_idle(self) -> bool:
        return self.waiting is None and not self.flying

    def may_send(self, most: int) -> bool:
        return self.waiting is None and self.flying < most


@dataclass
class CreditScheduler:
    places: int  # frames in a batch
    most: int = 1  # frames of one camera that may be here
    cameras: dict[str, Camera] = field(default_factory=dict)
    _asking: deque[Camera] = field(default_factory=deque)  # the longest first
    _arrived: deque[Camera] = field(default_factory=deque)  # those whose frames wait here, in their order

    def keep(self, names: Container[str]) -> None:
        """Forget all other cameras, and what waits here of them."""
        self.cameras = {name: camera for name, camera in self.cameras.items() if name in names}

    def ask(self, name: str, door: Socket, identity: bytes, session: str) -> None:
        """A camera has a frame.  One with another session or address takes the place of the earlier one."""
        camera = self.cameras.get(name)
        if camera is None or not camera.is_of(door, identity, session):
            camera = self.cameras[name] = Camera(name, door, identity, session)
        if camera.may_send(self.most) and not camera.asks:
            camera.asks = True  # also where credit is on its way to it just now
            self._asking.append(camera)

    def arrived(self, camera: Camera, frame: Frame, stamps: Stamps) -> None:
        camera.granted, camera.newest = False, frame.ref.seq
        camera.waiting = (frame, stamps)
        self._arrived.append(camera)

    def grants(self, now_s: float) -> Iterator[Camera]:
        """Those that are given credit now."""
        cameras = self.cameras.values()
        coming = sum(camera.granted and now_s - camera.place_s < GRANT_S for camera in cameras)
        room = self.places - coming - sum(camera.waiting is not None for camera in cameras)
        while self._asking and room > 0:
            camera = self._asking.popleft()
            asks, camera.asks = camera.asks, False
            if asks and camera.may_send(self.most) and self.cameras.get(camera.name) is camera:
                camera.granted, camera.place_s = True, now_s
                room -= 1
                yield camera

    def waiting(self) -> list[Camera]:
        """Those whose frames wait here, the longest first, and no more than a batch holds."""
        here = [camera for camera in self._arrived if self._is_waiting(camera)]
        self._arrived = deque(here)
        return here[: self.places]

    def _is_waiting(self, camera: Camera) -> bool:
        return camera.waiting is not None and self.cameras.get(camera.name) is camera

    def take(self, camera: Camera) -> tuple[Frame, Stamps]:
        """Its frame, which goes to the device."""
        assert camera.waiting is not None
        frame, camera.waiting = camera.waiting, None
        camera.flying += 1
        return frame

    def expected(self) -> int:
        """Cameras that may send a frame any moment."""
        return sum(camera.may_send(self.most) for camera in self.cameras.values())

    def ended(self, camera: Camera, ref: FrameRef) -> None:
        """A frame of it has met its fate.  Where nobody else waits it need not ask for the next one."""
        if camera.waiting is not None and camera.waiting[0].ref == ref:
            camera.waiting = None
        else:
            camera.flying = max(0, camera.flying - 1)  # it may have come in anew while its frame was here
        if not camera.granted and not self._asking and camera.may_send(self.most):
            camera.granted, camera.place_s = True, 0.0
