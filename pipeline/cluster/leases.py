"""Who owns which camera: sessions of hosts, and the cameras that are leased to them.  Pure: no clock, no I/O.

A host renews one key, its *session*; a camera's key names the session that owns it, and changes only with its owner.
Keys are changed by compare-and-set, so that of several writers one wins.  A camera's *fencing token* is the revision of
its key: each owner's is higher than that of every owner before.

Times are durations on a host's own monotonic clock, so clocks may differ by anything:

    owner    may write for LEASE_S - MARGIN_S from when it sent its last renewal that succeeded
    others   expire a session whose key was unchanged for LEASE_S from when they had read it to when they read it again,
             by compare-and-set on the revision that they read; then the cameras are free

An owner stops before another can begin: it sent its renewal before that could be read, and waits for less.

Revisions are those of all keys together: a session that owned a camera from revision N is over where its host's key has
a later revision and names another session.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.cluster.assignment import assigned

LEASE_S = 2.5
MARGIN_S = 0.25  # monotonic clocks that differ in rate by less than a tenth are harmless
RENEW_PERIOD_S = 0.5
MAX_VIEW_GAP_S = 1.5  # between two views; after a longer one nobody could renew, or be seen to


class HostRecord(NamedTuple):
    """The session key of a host."""

    revision: int
    session: str  # empty: the host has left, or was expired
    version: str


class CameraRecord(NamedTuple):
    """The key of a camera."""

    revision: int
    host: str
    session: str  # empty: it is free


@dataclass(frozen=True)
class View:
    """All keys, as they were read at one time.  Keys are never deleted."""

    hosts: Mapping[str, HostRecord] = field(default_factory=dict)
    cameras: Mapping[str, CameraRecord] = field(default_factory=dict)


class Join(NamedTuple):
    """Begin this session: change this host's key from this revision; 0: there is none."""

    session: str
    revision: int


class Expire(NamedTuple):
    """End the session of a host that does not renew it: change its key from this revision."""

    host: str
    revision: int


class Acquire(NamedTuple):
    """Take a camera for this session: change its key from this revision; 0: there is none."""

    session: str
    camera: str
    revision: int
    cause: str  # free: it has no owner; dead: its owner's session has ended


class HandOver(NamedTuple):
    """Stop processing a camera, `leave` it, then free its key, from this revision: another host is to process it."""

    camera: str
    revision: int


Action = Join | Expire | Acquire | HandOver


class Leases:
    """What a host knows of all keys, and what it should do next.

    Args:
        host: this one.
        version: of the program; hosts of another one are not worked with.
        session: id of this host's session, new at each start.
        cameras: ids, each with the only host that may process it, or None.
        capacities: of the configured hosts.
    """

    def __init__(
        self,
        host: str,
        version: str,
        session: str,
        cameras: Mapping[str, str | None],
        capacities: Mapping[str, float],
    ) -> None:
        self.cameras = cameras
        self._host = host
        self._version = version
        self._session = session
        self._capacities = capacities
        self._hosts: dict[str, HostRecord] = {}
        self._records: dict[str, CameraRecord] = {}
        self._left: dict[str, int] = {}  # cameras that this host no longer writes for, though its key may still say so
        self._since_s: dict[str, float] = {}  # when each host's key was first read at its revision
        self._viewed_s = float("-inf")  # when the newest view was asked for
        self._until_s = float("-inf")  # this host may write

    # What happened.

    def viewed(self, view: View, asked_s: float, arrived_s: float) -> bool:
        """Take over what was read; return whether this host's session was lost.

        Args:
            view: possibly older than what is known, where it was read from another server.
            asked_s: when the keys were asked for.
            arrived_s: when the last of them had come.
        """
        own = self._hosts.get(self._host)
        if own is not None and self._host not in view.hosts:  # all was deleted: revisions begin anew
            self._hosts, self._records, self._since_s = {}, {}, {}
        # Where this host cannot renew its session either, it is the servers that are away.
        if asked_s - self._viewed_s > MAX_VIEW_GAP_S or (self._is_joined and arrived_s >= self._until_s):
            self._since_s = {}
        self._viewed_s = asked_s
        for host, record in view.hosts.items():
            if record.revision > self.known(host):
                self._hosts[host] = record
                self._since_s.pop(host, None)
            self._since_s.setdefault(host, arrived_s)
        for camera, camera_record in view.cameras.items():
            self._learn(camera, camera_record)
        return own is not None and own.session == self._session and not self._is_joined

    def renewed(self, session: str, revision: int, sent_s: float) -> None:
        """Note that a session of this host was begun or renewed; `sent_s` is when that was asked for."""
        if session == self._session and revision >= self.known(self._host):
            self._hosts[self._host] = HostRecord(revision, session, self._version)
            self._until_s = max(self._until_s, sent_s + LEASE_S - MARGIN_S)

    def expired(self, host: str, revision: int) -> None:
        """Note that a host's session was ended by this host, with this revision of its key."""
        if revision > self.known(host):
            self._hosts[host] = HostRecord(revision, "", self._hosts[host].version)

    def acquired(self, session: str, camera: str, revision: int) -> None:
        """Note that a camera was acquired for a session, with this revision of its key."""
        self._learn(camera, CameraRecord(revision, self._host, session))

    def leave(self, camera: str) -> None:
        """Give up a camera: this host no longer writes for it.  To be called before its key is freed."""
        self._left[camera] = self.token(camera)

    def freed(self, camera: str, revision: int) -> None:
        """Note that a camera was freed, with this revision of its key."""
        self._learn(camera, CameraRecord(revision, self._host, ""))

    def restart(self, session: str) -> None:
        """Go on with another session: the last one was lost."""
        self._session, self._until_s = session, float("-inf")

    # What holds.

    @property
    def session(self) -> str:
        """The id of this host's session."""
        return self._session

    @property
    def revision(self) -> int | None:
        """The revision of this host's key; None while it has no session."""
        return self._hosts[self._host].revision if self._is_joined else None

    def known(self, host: str) -> int:
        """Return the newest revision of a host's key that is known; 0: there is none."""
        record = self._hosts.get(host)
        return record.revision if record is not None else 0

    def is_valid(self, now_s: float) -> bool:
        """Return whether this host may write."""
        return self._is_joined and now_s < self._until_s

    def held(self) -> dict[str, int]:
        """Return the cameras of this host with their tokens, also while it cannot renew."""
        if not self._is_joined:
            return {}
        return {
            name: record.revision
            for name, record in self._records.items()
            if record.session == self._session and self._left.get(name) != record.revision
        }

    def awaited(self) -> set[str]:
        """Return the cameras that this host holds or is about to: those that no other host may process, nor does."""
        own = {camera for camera, only in self.cameras.items() if only == self._host}
        others = {camera for camera, record in self._records.items() if record.host != self._host}
        return self.held().keys() | (own - others)

    def token(self, camera: str) -> int:
        """Return the newest token of a camera that this host knows, whoever's; 0 where there was none."""
        record = self._records.get(camera)
        return record.revision if record is not None else 0

    def other_version(self) -> tuple[str, str] | None:
        """Return a host with a session of another version, and that version; None where there is none."""
        for host, record in self._hosts.items():
            if record.session and record.version != self._version and host != self._host and not self._is_silent(host):
                return host, record.version
        return None

    # What to do.

    def actions(self, now_s: float) -> list[Action]:
        """Return what to do now, given the newest view."""
        actions: list[Action] = [
            Expire(host, record.revision)
            for host, record in self._hosts.items()
            if record.session and record.session != self._session and self._is_silent(host)
        ]
        if not self._is_joined:
            own = self._hosts.get(self._host)
            if (own is None or not own.session) and self.other_version() is None:
                actions.append(Join(self._session, self.known(self._host)))
        elif self.is_valid(now_s):
            actions += self._moves()
        return actions

    def _moves(self) -> list[Action]:
        live = {
            host: self._capacities[host]
            for host, record in self._hosts.items()
            if host in self._capacities
            and record.session
            and record.version == self._version
            and (host == self._host or not self._is_silent(host))
        }
        hosts, moves = assigned(self.cameras, live), list[Action]()
        for camera in self.cameras:
            record = self._records.get(camera, CameraRecord(0, "", ""))
            is_own, is_wanted = record.session == self._session, hosts.get(camera) == self._host
            if is_own and ((camera in hosts and not is_wanted) or self._left.get(camera) == record.revision):
                moves.append(HandOver(camera, record.revision))
            elif is_wanted and not record.session:
                moves.append(Acquire(self._session, camera, record.revision, "free"))
            elif is_wanted and not is_own:
                moves += self._take_over(camera, record)
        return moves

    def _take_over(self, camera: str, record: CameraRecord) -> list[Action]:
        """Return how to take a camera from a session, where that is over."""
        owner = self._hosts.get(record.host)
        if owner is None or owner.session == record.session:
            return []
        if owner.revision > record.revision:
            return [Acquire(self._session, camera, record.revision, "dead")]
        # It acquired the camera when it had already been expired; or the host has a session that is not known yet.
        return [] if owner.session else [Expire(record.host, owner.revision)]

    @property
    def _is_joined(self) -> bool:
        own = self._hosts.get(self._host)
        return own is not None and own.session == self._session

    def _is_silent(self, host: str) -> bool:
        """Return whether a host has not renewed its session for as long as its lease."""
        return self._viewed_s - self._since_s.get(host, float("inf")) >= LEASE_S

    def _learn(self, camera: str, record: CameraRecord) -> None:
        before = self._records.get(camera)
        if before is None or record.revision > before.revision:
            self._records[camera] = record
