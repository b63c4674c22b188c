"""Verify a run folder against its evidence log.

In: the log, its signed heads, the files that it names, and the store.  Out: a finding for each line, head, file and
event that was changed, removed or does not fit.  Everything is computed anew.  The program may be running.
"""

import hashlib
from collections.abc import Collection, Iterator
from pathlib import Path

import msgspec

from pipeline.errors import StoreError
from pipeline.evidence.files import all_names, file_digest
from pipeline.evidence.heads import Head, read_heads
from pipeline.evidence.leaves import PREVIOUS_DIGITS, ActionLeaf, AnyLeaf, EventLeaf, FileLeaf, LogState, decode_leaf
from pipeline.evidence.log import FIRST, FOLDER, HEADS, LOG, EvidenceError, read_lines
from pipeline.evidence.merkle import Frontier, leaf_hash
from pipeline.evidence.report import Report
from pipeline.evidence.times import utc
from pipeline.store.payloads import PayloadReader

UNLOGGED_NS = 120_000_000_000  # a file that is that much older than the newest head should have been in the log


def verify_run(run_dir: Path, store: Path, keys: Collection[str] = (), copy: Path | None = None) -> Report:
    """Verify a run folder.

    Args:
        run_dir: the folder.
        store: its store; a missing one is remarked.
        keys: public keys, one of which must have signed each head; none: any.
        copy: of `heads.jsonl`, as it was at an earlier time.

    Raises:
        EvidenceError: there is no log, or it or the copy cannot be read.
    """
    report = Report()
    folder = run_dir / FOLDER
    try:
        heads = _heads(folder / HEADS, HEADS, report, keys) if (folder / HEADS).exists() else []
        if not heads:
            report.findings.append(f"{HEADS}: holds no head: the log is not signed")
        if copy is not None:
            heads += _removed(_heads(copy, str(copy), report, keys), heads, report)
        report.heads = len(heads)
        report.signed_utc_ns = max((head.time_utc_ns for head in heads), default=0)
        report.keys = tuple(dict.fromkeys(head.key for head in heads))
        log = _Log(folder / LOG, heads, report)
        _compare_files(run_dir, log, report)
        _compare_events(store, log, report)
    except OSError as error:
        raise EvidenceError(f"{error.filename or folder}: cannot be read ({error.strerror})") from error
    return report


def _heads(path: Path, name: str, report: Report, keys: Collection[str]) -> list[Head]:
    """Return the heads whose signatures are right; they may still not fit the log."""
    heads = list[Head]()
    for number, head in enumerate(read_heads(path), start=1):
        if head is None or not head.is_signed:
            report.findings.append(f"{name}, line {number}: was changed: its signature does not fit")
        elif keys and head.key not in keys:
            report.findings.append(f"{name}, line {number}: is signed by another key, {head.key}")
        else:
            if heads and head.tree_size < heads[-1].tree_size:
                report.findings.append(f"{name}, line {number}: is of a shorter log than the head before")
            heads.append(head)
    return heads


def _removed(copied: list[Head], heads: list[Head], report: Report) -> list[Head]:
    """Return the heads that only the copy has."""
    removed = [head for head in copied if head not in heads]
    report.findings += [f"{HEADS}: the head of {utc(head.time_utc_ns)} was removed" for head in removed]
    return removed


class _Log:
    """The log as it is read, line by line; its faults go to the report."""

    def __init__(self, path: Path, heads: list[Head], report: Report) -> None:
        self.path = path
        self.state = LogState()
        self.events: dict[str, EventLeaf] = {}
        self.actions: dict[str, ActionLeaf] = {}
        self.sizes: dict[str, int] = {}  # of files
        self.newest_head_ns = report.signed_utc_ns
        self._report = report
        self._frontier = Frontier()
        self._previous: str | None = FIRST
        self._next = 0
        self._heads = sorted(heads, key=lambda head: head.tree_size)
        self._signed = 0  # size of the last head that fits
        self._is_broken = False
        self._check_heads()
        for line in read_lines(path):
            self._take(line)
        report.leaves = self._frontier.size
        if self._heads:
            head = self._heads[-1]
            report.findings.append(
                f"{LOG}: was cut off: has {report.leaves} leaves, and had {head.tree_size} on {utc(head.time_utc_ns)}"
            )

    def read_on(self) -> None:
        """Take what was written meanwhile."""
        for n, line in enumerate(read_lines(self.path)):
            if n >= self._frontier.size:
                self._take(line)

    def _take(self, line: bytes) -> None:
        number, hashed = self._frontier.size + 1, leaf_hash(line)
        try:
            leaf = decode_leaf(line)
        except msgspec.DecodeError:
            self._report.findings.append(f"{LOG}, line {number}: was changed: is no leaf")
            self._previous, self._next = None, self._next + 1
        else:
            self._check_order(leaf, number)
            self._previous, self._next = hashed.hex()[:PREVIOUS_DIGITS], leaf.n + 1
            self.state.take(leaf)
            if isinstance(leaf, EventLeaf):
                self.events[leaf.id] = leaf
            elif isinstance(leaf, ActionLeaf):
                self.actions[leaf.id] = leaf
            elif isinstance(leaf, FileLeaf):
                self.sizes[leaf.file] = leaf.size_bytes
        self._frontier.append(hashed)
        self._check_heads()

    def _check_order(self, leaf: AnyLeaf, number: int) -> None:
        removed = leaf.n - self._next
        if removed > 0:
            which = f"leaf {self._next} was" if removed == 1 else f"leaves {self._next} to {leaf.n - 1} were"
            self._report.findings.append(f"{LOG}, line {number}: {which} removed before it")
        elif removed < 0:
            self._report.findings.append(f"{LOG}, line {number}: leaf {leaf.n} in the place of leaf {self._next}")
        elif self._previous not in (None, leaf.previous):
            self._report.findings.append(f"{LOG}, line {number - 1}: was changed: line {number} has another hash of it")

    def _check_heads(self) -> None:
        """Compare the root with the heads of this size."""
        size = self._frontier.size
        while self._heads and self._heads[0].tree_size <= size:
            head = self._heads.pop(0)
            if head.root_hash == self._frontier.root().hex():
                self._signed = size
            elif not self._is_broken:  # no later root fits either
                self._is_broken = True
                self._report.findings.append(
                    f"{LOG}, lines {self._signed + 1} to {size}: do not give the root that was signed on"
                    f" {utc(head.time_utc_ns)}: at least one was changed, added or removed"
                )


def _compare_files(run_dir: Path, log: _Log, report: Report) -> None:
    missing = list[str]()
    for name, sha256 in sorted(log.state.files.items()):
        try:
            digest = file_digest(run_dir / name)
        except FileNotFoundError:
            missing.append(name)
            continue
        if digest.sha256 != sha256:
            size = f" ({digest.size_bytes} bytes instead of {log.sizes[name]})" * (digest.size_bytes != log.sizes[name])
            report.findings.append(f"{name}: was changed{size}")
        report.files += 1
    log.read_on()  # retention may have deleted some meanwhile
    report.findings += [f"{name}: was removed" for name in missing if name in log.state.files]
    if log.state.deleted:
        report.remarks.append(f"{len(log.state.deleted)} files were deleted by retention")
    known = log.state.files.keys() | log.state.deleted
    unlogged = [name for name in all_names(run_dir) if name not in known]
    for name in unlogged:
        changed_ns = (run_dir / name).stat().st_mtime_ns if (run_dir / name).exists() else log.newest_head_ns
        if changed_ns < log.newest_head_ns - UNLOGGED_NS:
            report.findings.append(f"{name}: is not in the log, and older than its newest head")
        else:
            report.remarks.append(f"{name}: is not in the log yet")


def _compare_events(store: Path, log: _Log, report: Report) -> None:
    if not store.exists():
        report.remarks.append(f"{store}: there is no store; events were not compared")
        return
    unlogged, left = 0, dict(log.events)
    try:
        with PayloadReader(store) as reader:
            for finding, is_new in _stored_faults(reader, left):
                report.findings += [finding] if finding else []
                unlogged += is_new
            report.findings += _action_faults(reader, log)
    except StoreError as error:
        report.findings.append(str(error))
        return
    report.events = len(log.events)
    before_ns = log.state.events_deleted_before_ns
    expired = sum(leaf.event_utc_ns < before_ns for leaf in left.values())
    if expired:
        report.remarks.append(f"{expired} events were deleted by retention")
    if unlogged:
        report.remarks.append(f"{unlogged} events are not in the log yet")
    report.findings += [
        f"event {leaf.id} ({leaf.event}, camera {leaf.camera}, {utc(leaf.event_utc_ns)}): was removed from the store"
        for leaf in left.values()
        if leaf.event_utc_ns >= before_ns
    ]


def _action_faults(reader: PayloadReader, log: _Log) -> Iterator[str]:
    """Yield what is wrong with the stored actions; those that are not in the log yet are not."""
    left = dict(log.actions)
    for action, payload in reader.all_actions():
        leaf = left.pop(action, None)
        if leaf is not None and hashlib.sha256(payload).hexdigest() != leaf.sha256:
            yield f"action {action} ({leaf.action}, {utc(leaf.action_utc_ns)}): was changed in the store"
    for leaf in left.values():
        if leaf.action_utc_ns >= log.state.events_deleted_before_ns:
            said = f"{leaf.action} by {leaf.user or 'nobody known'}, {utc(leaf.action_utc_ns)}"
            yield f"action {leaf.id} ({said}): was removed from the store"


def _stored_faults(reader: PayloadReader, left: dict[str, EventLeaf]) -> Iterator[tuple[str, bool]]:
    """Yield for each stored event what is wrong with it, or nothing, and whether the log does not hold it yet.

    Those that are stored are taken out of `left`.
    """
    for event, kind, time_utc_ns, payload in reader.all():
        leaf = left.pop(event, None)
        if leaf is not None and hashlib.sha256(payload).hexdigest() != leaf.sha256:
            yield f"event {event} ({kind}, {utc(time_utc_ns)}): was changed in the store", False
        else:
            yield "", leaf is None
