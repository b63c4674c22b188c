"""The leaves of the evidence log, and what they say together.  Pure.

A leaf is one line of JSON.  It holds its number and the beginning of its predecessor's hash, so that a line that was
changed or removed shows where it was; the signed root shows that none was.
"""

from collections import deque
from typing import Literal

import msgspec

from pipeline.types import EventKind

PREVIOUS_DIGITS = 16
RECENT_EVENTS = 20_000  # among which an event that is delivered again is recognised


ProgramState = Literal["started", "reconfigured", "stopped"]


class Leaf(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind"):
    """What all leaves have."""

    n: int  # 0-based
    previous: str  # the first hexadecimal digits of the hash of the leaf before
    time_utc_ns: int  # when it was written


class Program(msgspec.Struct, frozen=True):
    """What made the evidence; the digests are those of the checkpoint's file and of the configuration's."""

    dasnet: str  # version
    checkpoint_sha256: str
    configuration_sha256: str


class ProgramLeaf(Leaf, frozen=True, kw_only=True, tag="program"):
    """The track worker started or stopped, or its configuration changed.  A start before a stop: it was killed."""

    state: ProgramState
    program: Program


class EventLeaf(Leaf, frozen=True, kw_only=True, tag="event"):
    """An event of an alert, or of a camera: `camera.down` and `camera.blind` last until its next one."""

    id: str
    event: str
    camera: str
    event_utc_ns: int
    sha256: str  # of the event's JSON in the store
    alert: str | None = None
    ends_alert: bool = False


class ActionLeaf(Leaf, frozen=True, kw_only=True, tag="action"):
    """Something that a person did."""

    id: str
    action: str
    user: str  # empty: whoever runs a program on the host
    action_utc_ns: int
    sha256: str  # of the action's JSON in the store
    address: str = ""  # from which the user did it
    alert: str | None = None
    detail: str = ""


class FileLeaf(Leaf, frozen=True, kw_only=True, tag="file"):
    """A complete file of the run folder; it is never written again."""

    file: str  # with its folder, as `clips/ID.mp4`
    sha256: str
    size_bytes: int


class DeletedFilesLeaf(Leaf, frozen=True, kw_only=True, tag="deleted"):
    """Files that retention deletes."""

    files: list[str]


class DeletedEventsLeaf(Leaf, frozen=True, kw_only=True, tag="deleted_events"):
    """Retention deletes events of before this time."""

    before_utc_ns: int


AnyLeaf = ProgramLeaf | EventLeaf | ActionLeaf | FileLeaf | DeletedFilesLeaf | DeletedEventsLeaf
_decoder = msgspec.json.Decoder(AnyLeaf)


def encode_leaf(leaf: AnyLeaf) -> bytes:
    """Return the entry of the tree: the line without its end."""
    return msgspec.json.encode(leaf)


def decode_leaf(entry: bytes) -> AnyLeaf:
    """Return the leaf of a line.  Raise msgspec.DecodeError."""
    return _decoder.decode(entry)


class LogState:
    """What the leaves so far say.

    Attributes:
        last_event: id of the newest event.
        last_action: id of the newest action.
        files: digest by name, of files that were not deleted.
        deleted: names of files that retention deleted.
        events_deleted_before_ns: events of before this time may have been deleted.
        without_sidecar: alerts that ended since their last sidecar, each with the program that opened it.
    """

    def __init__(self) -> None:
        self.last_event: str | None = None
        self.last_action: str | None = None
        self.files: dict[str, str] = {}
        self.deleted: set[str] = set()
        self.events_deleted_before_ns = 0
        self.without_sidecar: dict[str, Program] = {}
        self._program = Program("", "", "")
        self._opened_by: dict[str, Program] = {}  # by alert that has no sidecar yet
        self._recent: dict[str, None] = {}
        self._order: deque[str] = deque()

    def holds(self, event_id: str) -> bool:
        """Return whether an event is one of the last RECENT_EVENTS."""
        return event_id in self._recent

    def take(self, leaf: AnyLeaf) -> None:
        """Continue with the next leaf."""
        match leaf:
            case ProgramLeaf():
                self._program = leaf.program
            case EventLeaf():
                self._take_event(leaf)
            case ActionLeaf():
                self.last_action = leaf.id
            case FileLeaf():
                self.files[leaf.file] = leaf.sha256
                self.deleted.discard(leaf.file)
                self.without_sidecar.pop(sidecar_alert(leaf.file), None)
                self._opened_by.pop(sidecar_alert(leaf.file), None)
            case DeletedFilesLeaf():
                for name in leaf.files:
                    self.files.pop(name, None)
                    self.deleted.add(name)
            case DeletedEventsLeaf():
                self.events_deleted_before_ns = max(self.events_deleted_before_ns, leaf.before_utc_ns)

    def _take_event(self, leaf: EventLeaf) -> None:
        self.last_event = leaf.id
        self._recent[leaf.id] = None
        self._order.append(leaf.id)
        if len(self._order) > RECENT_EVENTS:
            self._recent.pop(self._order.popleft(), None)
        if leaf.alert is None:
            return
        if leaf.event == EventKind.ALERT_OPENED:
            self._opened_by[leaf.alert] = self._program
        elif leaf.ends_alert:
            self.without_sidecar[leaf.alert] = self._opened_by.get(leaf.alert, self._program)
        elif leaf.event == EventKind.ALERT_ESCALATED:  # active again
            self.without_sidecar.pop(leaf.alert, None)


SIDECARS, CONFIGURATIONS = "evidence", "evidence/configurations"  # folders of the run folder


def sidecar_alert(name: str) -> str:
    """Return the alert of a sidecar, from its name in the run folder; empty: it is none."""
    folder, _, file = name.rpartition("/")
    stem = file.removesuffix(".json")
    return stem[:26] if folder == SIDECARS and stem != file else ""
