"""The credit flow as a whole: frame queue, credit client, ledger and scheduler, with messages that are delayed or lost.

A hypothesis state machine plays cameras, a device and the network between them.  After every step the ledgers balance,
credit is not exceeded, and no camera is served twice while another one waits.
"""

import tempfile
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pipeline.segmentation.scheduler import GRANT_TIMEOUT_S, CameraSession, CreditScheduler
from pipeline.store.ledger import Account, Ledger, read
from pipeline.timeouts import CREDIT_REQUEST_PERIOD_S, OUTCOME_TIMEOUT_S
from pipeline.transport.credit import MAX_IN_FLIGHT, CreditClient
from pipeline.transport.frame_queue import MAX_FRAMES
from pipeline.transport.wire import Credit, Stamps
from pipeline.types import Band, Frame, FrameRef

NAMES = ("a", "b", "c")
ROUTER: Any = object()
PIXELS = np.zeros((2, 2), np.uint8)
MAX_AGE_S = 0.25
cameras = st.sampled_from(NAMES)


class Camera:
    """A capture worker: its client and ledger, and the messages between it and the segmentation worker."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.path = name, folder / f"{name}.ledger"
        self.ledger = Ledger(self.path, MAX_IN_FLIGHT)
        self.client = CreditClient(self.ledger, MAX_AGE_S)
        self.offered = 0
        self.sent: deque[Frame | None] = deque()  # frames on their way; None: a credit request
        self.received: deque[Credit] = deque()
        self.worker = ""  # that sent the last credit
        self.has_expired = False  # a frame may arrive after it was counted as failed

    @property
    def account(self) -> Account:
        return read(self.path)


class CreditFlow(RuleBasedStateMachine):
    @initialize(slots=st.integers(1, 3), frames_per_camera=st.integers(1, 2))
    def start(self, slots: int, frames_per_camera: int) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.now_s, self.worker, self.workers = 100.0, "worker-0", 0
        self.slots, self.frames_per_camera = slots, frames_per_camera
        self.cameras = {name: Camera(name, Path(self.folder.name)) for name in NAMES}
        self.start_worker()

    def start_worker(self) -> None:
        self.scheduler = CreditScheduler(self.slots, self.frames_per_camera)
        self.device: deque[tuple[CameraSession, FrameRef]] = deque()
        self.waits: dict[str, set[str]] = {}  # camera -> those served since it requested credit

    def teardown(self) -> None:
        if hasattr(self, "cameras"):
            self.drain()
            for camera in self.cameras.values():
                camera.client.close()
                account = camera.account
                assert account.balanced and account.in_flight == 0 and account.captured == camera.offered
                camera.ledger.close()
            self.folder.cleanup()

    @rule(name=cameras, count=st.integers(1, MAX_FRAMES + 2), gap_s=st.sampled_from([0.001, 0.04, 0.4]))
    def offer(self, name: str, count: int, gap_s: float) -> None:
        camera = self.cameras[name]
        for _ in range(count):
            self.now_s += gap_s
            ref = FrameRef(name, "s", camera.offered, self.now_s, round(self.now_s * 1e9), 0)
            camera.client.put(Frame(ref, Band.VISIBLE, PIXELS), Stamps())
            camera.offered += 1

    @rule(name=cameras)
    def work_camera(self, name: str) -> None:
        camera = self.cameras[name]
        if camera.client.request_due(self.now_s):
            camera.sent.append(None)
        if (taken := camera.client.take(self.now_s)) is not None:
            camera.sent.append(taken[0])

    @rule(name=cameras)
    def deliver_to_segmentation(self, name: str) -> None:
        camera = self.cameras[name]
        if not camera.sent:
            return
        frame = camera.sent.popleft()
        if frame is None:
            self.scheduler.request(name, ROUTER, name.encode(), "s")
            if self.scheduler.cameras[name].requests_credit:
                self.waits.setdefault(name, set())
            return
        session = self.scheduler.cameras.get(name)
        if session is None or not session.granted:  # the worker rejects it
            assert camera.worker != self.worker or camera.has_expired, "a frame was sent without credit"
        else:
            assert session.waiting is None, "a frame would be replaced unnoticed"
            self.scheduler.arrived(session, frame, Stamps())

    @rule(name=cameras)
    def deliver_to_camera(self, name: str) -> None:
        camera = self.cameras[name]
        if camera.received:
            camera.worker = camera.received[0].worker
            camera.client.receive(camera.received.popleft())

    @rule(order=st.permutations(NAMES), finishes=st.booleans())
    def run(self, order: list[str], finishes: bool) -> None:
        """Let every camera send a frame, and messages arrive at once: what happens nearly always."""
        for name in order:
            self.offer(name, 1, 0.01)
            self.work_camera(name)
            while self.cameras[name].sent:
                self.deliver_to_segmentation(name)
        self.grant()
        self.submit()
        if finishes:
            self.finish(succeeds=True)
        for name in order:
            while self.cameras[name].received:
                self.deliver_to_camera(name)

    @rule()
    def grant(self) -> None:
        for session in self.scheduler.grants(self.now_s):
            self.served(session.name)
            self.report(session)

    def served(self, name: str) -> None:
        self.waits.pop(name, None)
        for other, since in self.waits.items():
            if not self.scheduler.cameras[other].requests_credit:
                continue  # the request was void: a frame of the camera is here already
            assert name not in since, f"{name} was served twice while {other} waited"
            since.add(name)

    def report(self, session: CameraSession, **outcomes: list[int]) -> None:
        credit = Credit(self.worker, "s", granted=session.granted, newest=session.newest, **outcomes)
        self.cameras[session.name].received.append(credit)

    @rule()
    def submit(self) -> None:
        """Give the device the next batch, with room for as many as it takes at once."""
        for session in self.scheduler.waiting():
            frame, _ = self.scheduler.take(session)
            self.device.append((session, frame.ref))

    @rule(succeeds=st.booleans())
    def finish(self, succeeds: bool) -> None:
        if self.device:
            self.end(*self.device.popleft(), "segmented" if succeeds else "failed")

    @rule()
    def expire_waiting(self) -> None:
        for session in self.scheduler.waiting()[:1]:
            assert session.waiting is not None
            self.end(session, session.waiting[0].ref, "failed")

    def end(self, session: CameraSession, ref: FrameRef, outcome: str) -> None:
        had_credit = session.granted
        self.scheduler.finished(session, ref)
        if session.granted and not had_credit:
            self.served(session.name)
        self.report(session, **{outcome: [ref.seq]})

    @rule()
    def restart_worker(self) -> None:
        """What the old worker had is lost, and so are the messages to it."""
        self.workers += 1
        self.worker = f"worker-{self.workers}"
        for camera in self.cameras.values():
            camera.sent.clear()
        self.start_worker()

    @rule(duration_s=st.sampled_from([GRANT_TIMEOUT_S, CREDIT_REQUEST_PERIOD_S, OUTCOME_TIMEOUT_S + 0.1]))
    def wait(self, duration_s: float) -> None:
        self.now_s += duration_s
        for camera in self.cameras.values():
            camera.client.expire(self.now_s)
            camera.has_expired |= duration_s > OUTCOME_TIMEOUT_S

    @rule()
    def drain(self) -> None:
        """Without further frames every camera is served to the end, whatever is under way."""
        for _ in range(100):
            if all(camera.client.is_drained for camera in self.cameras.values()):
                return
            self.now_s += CREDIT_REQUEST_PERIOD_S
            for name, camera in self.cameras.items():
                camera.client.expire(self.now_s)
                camera.has_expired = True
                self.work_camera(name)
                while camera.sent:
                    self.deliver_to_segmentation(name)
            self.submit()
            while self.device:
                self.finish(succeeds=True)
            self.grant()
            for name, camera in self.cameras.items():
                while camera.received:
                    self.deliver_to_camera(name)
        raise AssertionError("frames without an outcome")

    @invariant()
    def ledgers_balance(self) -> None:
        for camera in getattr(self, "cameras", {}).values():
            account = camera.account
            assert account.balanced, account
            assert account.in_flight <= MAX_IN_FLIGHT
            assert 0 <= camera.offered - account.captured <= MAX_FRAMES, "the rest waits in the queue"

    @invariant()
    def credit_is_not_exceeded(self) -> None:
        if hasattr(self, "scheduler"):
            sessions = self.scheduler.cameras.values()
            reserved = [s for s in sessions if s.granted and self.now_s - s.granted_s < GRANT_TIMEOUT_S]
            assert len(self.scheduler.waiting()) <= self.slots
            assert len(reserved) <= self.slots
            assert all(s.in_flight <= self.frames_per_camera for s in sessions)


TestCreditFlow = CreditFlow.TestCase
TestCreditFlow.settings = settings(deadline=None, max_examples=60, stateful_step_count=40)
