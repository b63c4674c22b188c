"""The sink of the evidence log: events, what people did, complete files, and what retention deletes, as leaves.

In: events from the outbox, actions from the store, and the run folder's files.  Out: the log and its signed heads.  As
a sink it loses nothing, whatever is killed or fails: it goes on after the newest event and action that the log holds,
and finds the files that it does not hold.
"""

import threading
import time
from collections.abc import Sequence
from functools import partial

import structlog

from pipeline import __version__
from pipeline.config.models import Config
from pipeline.errors import DasnetError
from pipeline.evidence.configuration import write_configuration
from pipeline.evidence.drafts import action_draft, event_draft
from pipeline.evidence.files import NewFiles
from pipeline.evidence.heads import append_head, newest_head, sign_head
from pipeline.evidence.leaves import DeletedEventsLeaf, DeletedFilesLeaf, Program, ProgramLeaf, ProgramState
from pipeline.evidence.log import HEADS, Draft, EvidenceError, EvidenceLog
from pipeline.evidence.metrics import EvidenceMetrics
from pipeline.evidence.sidecars import Sidecars
from pipeline.evidence.signing import load_key, make_key
from pipeline.sinks.sink import Sink
from pipeline.store.payloads import PayloadReader
from pipeline.store.reader import StoreReader
from pipeline.types import Event, FrameRef, Track

NAME = "evidence:log"  # no name that a site can give to a sink of its own
HEAD_PERIOD_S = 3600.0
PROMPT_HEAD_S = 10.0  # at the earliest after the head before, where there are new leaves
DELETED_PER_LEAF = 200
ACTIONS_PER_BATCH = 200
HOUR_NS = 3_600_000_000_000

log = structlog.get_logger()


def is_evidence(event: Event) -> bool:
    """Return whether the log holds an event."""
    return event.is_alert or event.kind.startswith("camera.")


class EvidenceSink(Sink):
    """Write the evidence log, in the outbox's thread.

    Others may call `track` and `close_camera` (one of them), `watch`, `deleting`, `deleting_events` and `finish`.

    Args:
        config: of the site.
        checkpoint_sha256: digest of the checkpoint's file.
        metrics: of the log.
    """

    from_now_on = False

    def __init__(self, config: Config, checkpoint_sha256: str, metrics: EvidenceMetrics) -> None:
        super().__init__(NAME, is_evidence)
        self._config = config
        self._checkpoint_sha256 = checkpoint_sha256
        self._metrics = metrics
        self._lock = threading.Lock()  # guards all below, but not `_config`
        self._log: EvidenceLog | None = None
        self._payloads: PayloadReader | None = None
        self._files = NewFiles(config.run_dir)
        self._logged_config: Config | None = None
        self._configuration_sha256 = ""
        self._deleting: set[str] = set()  # files that retention deletes, or deleted a moment ago
        self._deleted: list[str] = []  # those of which the log does not know yet
        self._deleted_before_ns = 0
        self._signed_s = float("-inf")
        self._signed_size = 0
        self._sidecars = Sidecars(config)

    def track(self, ref: FrameRef, tracks: Sequence[Track], events: Sequence[Event]) -> None:
        """Take a frame's tracks, before its events can arrive.  Does not block."""
        self._sidecars.track(ref, tracks, events)

    def close_camera(self, camera: str) -> None:
        """Forget the tracks of a camera whose session ended."""
        self._sidecars.close(camera)

    def open(self) -> str | None:
        """Open the log, cut off what a crash left incomplete, and say that the program started.

        Raises:
            EvidenceError: the log cannot be read or written.
            StoreError: the store cannot be read.
        """
        with self._lock:
            self._open()
            return self._opened.state.last_event

    def send(self, events: Sequence[Event]) -> None:
        """Append the events that the log does not hold.  Raise EvidenceError or StoreError."""
        with self._lock:
            state = self._opened.state
            new = [event for event in events if not state.holds(event.id)]
            assert self._payloads is not None
            payloads = self._payloads.of_events([event.id for event in new])
            self._opened.append([event_draft(event, payloads.get(event.id)) for event in new])
            self._update_metrics()

    def idle(self, reader: StoreReader) -> None:  # noqa: ARG002
        """Add files, and sign the head where it is due.  Raise EvidenceError."""
        with self._lock:
            self._add_what_is_new()
            now_s = time.monotonic()
            period_s = PROMPT_HEAD_S if self._opened.size > self._signed_size else HEAD_PERIOD_S
            if now_s - self._signed_s >= period_s:
                self._sign()
            self._update_metrics()

    def watch(self, config: Config) -> None:
        """Log a new configuration of the running program, soon.  Does not block."""
        self._config = config

    def deleting(self, names: Sequence[str]) -> None:
        """Log that retention deletes these files of the run folder, before it does."""
        with self._lock:
            self._deleting.update(names)
            self._deleted += names
            self._try_to_log_deletions()

    def deleting_events(self, before_ns: int) -> None:
        """Log that retention deletes events of before a time (UTC)."""
        with self._lock:
            self._deleted_before_ns = max(self._deleted_before_ns, before_ns)
            self._try_to_log_deletions()

    def finish(self, deadline_s: float) -> None:
        """Say that the program stops, sign the last head and close the log.  Failures are logged."""
        if not self._lock.acquire(timeout=deadline_s):
            log.warning("evidence log not finished: its disk does not answer")
            return
        try:
            if self._log is None:
                self._open()
            self._add_what_is_new(is_last=True)
            self._opened.append([self._program("stopped")])
            self._sign()
            self._update_metrics()
        except (DasnetError, OSError) as error:
            log.warning("evidence log not finished", reason=str(error))
        finally:
            self._close()
            self._lock.release()

    def close(self) -> None:
        """Close the log."""
        with self._lock:
            self._close()

    @property
    def _opened(self) -> EvidenceLog:
        if self._log is None:
            raise EvidenceError("evidence log: is not open")
        return self._log

    def _open(self) -> None:
        folder = self._config.evidence_path
        self._log = EvidenceLog(folder)
        try:
            newest = newest_head(folder / HEADS)
        except OSError as error:
            raise EvidenceError(f"{folder / HEADS}: {error.strerror}") from error
        if newest is not None and newest.tree_size > self._log.size:
            log.error("evidence log is shorter than it was signed: leaves were removed", leaves=self._log.size,
                      signed=newest.tree_size)  # fmt: skip
        if newest is not None:
            self._metrics.signed.set(newest.time_utc_ns / 1e9)
        self._payloads = PayloadReader(self._config.store_path)
        self._log_configuration()
        self._update_metrics()

    def _log_configuration(self) -> None:
        """Log the start of the program, and each change of its configuration."""
        config = self._config
        if self._logged_config is config:
            return
        self._configuration_sha256 = write_configuration(config)
        self._opened.append([self._program("started" if self._logged_config is None else "reconfigured")])
        self._logged_config = config

    def _program(self, state: ProgramState) -> Draft:
        program = Program(__version__, self._checkpoint_sha256, self._configuration_sha256)
        return partial(ProgramLeaf, state=state, program=program)

    def _add_what_is_new(self, is_last: bool = False) -> None:
        """Add deletions, a new configuration, actions, files and sidecars, in this order."""
        self._log_deletions()
        self._log_configuration()
        self._add_actions()
        self._add_files()
        if self._write_sidecars(is_last):
            self._add_files()

    def _add_actions(self) -> None:
        assert self._payloads is not None
        while payloads := self._payloads.actions_after(self._opened.state.last_action, ACTIONS_PER_BATCH):
            self._opened.append([action_draft(payload) for payload in payloads])

    def _add_files(self) -> None:
        self._opened.append(self._files.drafts(self._opened.state.files, self._deleting))

    def _write_sidecars(self, is_last: bool) -> bool:
        """Write the sidecars of alerts that ended: those that are due, or all; return whether there are any."""
        state, config = self._opened.state, self._config
        due = list(state.without_sidecar) if is_last else self._sidecars.due(state.without_sidecar, state.files, config)
        for alert in due:
            assert self._payloads is not None
            program = state.without_sidecar[alert]
            self._sidecars.write(alert, self._payloads.of_alert(alert), program, state.files)
        return bool(due)

    def _try_to_log_deletions(self) -> None:
        try:
            if self._log is not None:
                self._log_deletions()
        except EvidenceError as error:  # the disk is full, which retention is about to end
            log.debug("deletion not in the evidence log yet", reason=str(error))

    def _log_deletions(self) -> None:
        state = self._opened.state
        known = [name for name in self._deleted if name in state.files]
        parts = [known[start : start + DELETED_PER_LEAF] for start in range(0, len(known), DELETED_PER_LEAF)]
        drafts: list[Draft] = [partial(DeletedFilesLeaf, files=part) for part in parts]
        if self._deleted_before_ns > state.events_deleted_before_ns:  # not each of retention's runs, but ahead of it
            before_ns = (self._deleted_before_ns // HOUR_NS + 1) * HOUR_NS
            drafts.append(partial(DeletedEventsLeaf, before_utc_ns=before_ns))
        self._opened.append(drafts)
        self._deleted.clear()
        self._deleting = {name for name in self._deleting if (self._config.run_dir / name).exists()}

    def _sign(self) -> None:
        key_path, heads = self._config.evidence_key_path, self._config.evidence_path / HEADS
        if make_key(key_path):
            if heads.exists():
                log.warning(
                    "key of the evidence log was missing: heads have another one from now on", file=str(key_path)
                )
            else:
                log.info("key of the evidence log made", file=str(key_path))
        head = sign_head(self._opened.size, self._opened.root(), time.time_ns(), load_key(key_path))
        append_head(heads, head)
        self._signed_s = time.monotonic()
        self._signed_size = head.tree_size
        self._metrics.signed.set(head.time_utc_ns / 1e9)

    def _update_metrics(self) -> None:
        self._metrics.leaves.set(self._opened.size)
        self._metrics.bytes.set(self._opened.size_bytes)

    def _close(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None
        if self._payloads is not None:
            self._payloads.close()
            self._payloads = None
