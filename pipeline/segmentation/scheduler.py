"""Round-robin credit scheduler across cameras: credit is granted when the device is about to be free.  Pure.

A camera whose frame waits requests credit.  There are as many slots as the next batch holds; the camera that has
waited longest is granted one, and sends the frame that it then has.  So no more frames are here than the device takes
next, each of them young, and no camera is served twice while another waits.  Where the device takes several batches at
once, a camera may have one frame in each.
"""

from collections import deque
from collections.abc import Container, Iterator
from dataclasses import dataclass, field

from pipeline.transport.sockets import Socket
from pipeline.transport.wire import Stamps
from pipeline.types import Frame, FrameRef

GRANT_TIMEOUT_S = 0.1  # a slot is reserved this long for a frame that does not come


@dataclass(eq=False)
class CameraSession:
    """One session of a capture worker."""

    name: str
    router: Socket  # of this host's cameras, or of those on other hosts
    identity: bytes  # its address there
    session: str
    waiting: tuple[Frame, Stamps] | None = None
    in_flight: int = 0  # frames that the device has
    newest: int = -1  # sequence number of the last frame that arrived
    requests_credit: bool = False  # a frame waits in its queue
    granted: bool = False
    granted_s: float = 0.0  # since when a slot is reserved; 0: none is, no other camera waited
    ended: bool = False  # a recording whose last frame has arrived

    def is_from(self, router: Socket, identity: bytes, session: str) -> bool:
        """Return whether a message of this origin belongs to this session."""
        return (self.router, self.identity, self.session) == (router, identity, session)

    @property
    def is_idle(self) -> bool:
        """Whether none of its frames is here."""
        return self.waiting is None and not self.in_flight

    def may_send(self, limit: int) -> bool:
        """Return whether there is room for one more of its frames."""
        return self.waiting is None and self.in_flight < limit


@dataclass
class CreditScheduler:
    """Grant credit in the order of the requests.

    Attributes:
        slots: frames in a batch.
        frames_per_camera: frames of one camera that the device may have.
        cameras: by name.
    """

    slots: int
    frames_per_camera: int = 1
    cameras: dict[str, CameraSession] = field(default_factory=dict)
    _requests: deque[CameraSession] = field(default_factory=deque)  # oldest first
    _arrived: list[CameraSession] = field(default_factory=list)  # those whose frames wait here, in their order

    def keep(self, names: Container[str]) -> None:
        """Forget all other cameras and their waiting frames."""
        self.cameras = {name: camera for name, camera in self.cameras.items() if name in names}

    def request(self, name: str, router: Socket, identity: bytes, session: str) -> None:
        """Queue a camera's credit request; another session or address replaces the camera's earlier one."""
        camera = self.cameras.get(name)
        if camera is None or not camera.is_from(router, identity, session):
            camera = self.cameras[name] = CameraSession(name, router, identity, session)
        if camera.may_send(self.frames_per_camera) and not camera.requests_credit:
            camera.requests_credit = True  # also where credit is on its way to it already
            self._requests.append(camera)

    def arrived(self, camera: CameraSession, frame: Frame, stamps: Stamps) -> None:
        """Add a frame, which uses up its camera's credit."""
        camera.granted, camera.newest = False, frame.ref.seq
        camera.waiting = (frame, stamps)
        self._arrived.append(camera)

    def grants(self, now_s: float) -> Iterator[CameraSession]:
        """Grant credit for the free slots, and yield the cameras that receive it."""
        cameras = self.cameras.values()
        reserved = sum(camera.granted and now_s - camera.granted_s < GRANT_TIMEOUT_S for camera in cameras)
        free = self.slots - reserved - sum(camera.waiting is not None for camera in cameras)
        while self._requests and free > 0:
            camera = self._requests.popleft()
            requested, camera.requests_credit = camera.requests_credit, False
            if requested and camera.may_send(self.frames_per_camera) and self.cameras.get(camera.name) is camera:
                camera.granted, camera.granted_s = True, now_s
                free -= 1
                yield camera

    def waiting(self) -> list[CameraSession]:
        """Return the cameras of the next batch, oldest frame first."""
        self._arrived = [camera for camera in self._arrived if self.cameras.get(camera.name) is camera]
        return self._arrived[: self.slots]

    def take(self, camera: CameraSession) -> tuple[Frame, Stamps]:
        """Return the camera's waiting frame, which goes to the device."""
        assert camera.waiting is not None
        frame, camera.waiting = camera.waiting, None
        self._arrived.remove(camera)
        camera.in_flight += 1
        return frame

    def expected(self) -> int:
        """Return how many cameras may send a frame at any moment."""
        return sum(camera.may_send(self.frames_per_camera) for camera in self.cameras.values())

    def finished(self, camera: CameraSession, ref: FrameRef) -> None:
        """Record that a frame has its outcome.  A camera is granted its next credit at once where no other waits."""
        if camera.waiting is not None and camera.waiting[0].ref == ref:
            camera.waiting = None
            self._arrived.remove(camera)
        else:
            camera.in_flight = max(0, camera.in_flight - 1)  # the session may have begun while its frame was here
        if not camera.granted and not self._requests and camera.may_send(self.frames_per_camera):
            camera.granted, camera.granted_s = True, 0.0
