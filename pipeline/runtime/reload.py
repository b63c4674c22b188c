"""Reload: the configuration is read again while the program runs; cameras and rules are added, removed or changed.

    SIGHUP, `dasnet reload` -> supervisor: reads and validates the file; rejects an invalid one, and the site runs on
    1. capture workers of cameras that were removed or changed are stopped
    2. segmentation, then tracking, then console are handed the configuration; each reports when it is applied
    3. capture workers of cameras that were added or changed are started

In this order no worker receives frames of a camera that it does not know.  All other workers run on, and lose no frame.
Only cameras and rules change; other keys that differ from the running configuration are listed, and wait for a restart.
Where only zones and sectors of a camera differ, its capture worker and its tracks go on.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import msgspec
import structlog
import yaml
import zmq

from pipeline.config.camera import Camera
from pipeline.config.file import load
from pipeline.config.models import Config
from pipeline.errors import ConfigError, DasnetError
from pipeline.runtime.process import set_event_on_signal
from pipeline.timeouts import RELOAD_TIMEOUT_S
from pipeline.transport.endpoints import Endpoints
from pipeline.transport.sockets import bound, connected

CONNECT_TIMEOUT_MS = 1000  # of a socket on this host


class Reply(msgspec.Struct):
    """The supervisor's reply to `dasnet reload`."""

    rejected: str = ""  # the reason; empty: the reload was applied
    lines: list[str] = []  # what has changed


@dataclass(frozen=True)
class Change:
    """The effect of a reload.

    Attributes:
        config: in use from then on.
        added: ids of cameras.
        removed: ids of cameras.
        changed: ids of cameras whose capture worker is replaced.
        rezoned: ids of cameras that go on with other zones or sectors.
        rules: whether the rules differ.
        pending: keys whose new values wait for a restart.
    """

    config: Config
    added: list[str]
    removed: list[str]
    changed: list[str]
    rezoned: list[str]
    rules: bool
    pending: list[str]

    @property
    def lines(self) -> list[str]:
        """The changes in words."""
        cameras = {"cameras added": self.added, "cameras removed": self.removed, "cameras changed": self.changed}
        cameras["zones changed"] = self.rezoned
        lines = [f"{kind}: {', '.join(ids)}" for kind, ids in cameras.items() if ids]
        if self.rules:
            lines.append("rules changed")
        if self.pending:
            lines.append(f"cannot be changed by reload, restart to apply: {', '.join(self.pending)}")
        return lines or ["nothing has changed"]


def change(running: Config, read: Config) -> Change:
    """Return the change from the running configuration to that of the file.  Raise ConfigError."""
    before, after = ({camera.id: camera for camera in config.cameras} for config in (running, read))
    remote = [camera for camera in read.cameras if camera.host is not None]
    if remote and running.link is None:
        raise ConfigError(
            f"camera {remote[0].id!r} is on host {remote[0].host!r}, and link cannot be changed by reload; "
            "restart to apply"
        )
    kept = [name for name in after if name in before]
    changed = [name for name in kept if _captured(after[name]) != _captured(before[name])]
    return Change(
        config=running.with_cameras_of(read),
        added=[name for name in after if name not in before],
        removed=[name for name in before if name not in after],
        changed=changed,
        rezoned=[name for name in kept if after[name] != before[name] and name not in changed],
        rules=running.rules != read.rules,
        pending=sorted(_differing(_restart_only(running), _restart_only(read), "")),
    )


def _captured(camera: Camera) -> dict[str, Any]:
    """Return the keys of a camera that its capture worker depends on."""
    return camera.model_dump(exclude={"zones", "sectors"})


def _restart_only(config: Config) -> dict[str, Any]:
    return config.model_dump(exclude={"cameras", "rules"})


def _differing(before: Any, after: Any, key: str) -> Iterator[str]:
    """Yield the dotted keys of values that differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in before.keys() | after.keys():
            yield from _differing(before.get(name), after.get(name), f"{key}.{name}" if key else name)
    elif before != after:
        yield key


def one_line(error: ConfigError) -> str:
    """Return the error's lines as one."""
    return "; ".join(str(error).splitlines())


class Requests:
    """The supervisor's side: requests for a reload, one after the other."""

    def __init__(self, config_path: Path) -> None:
        self._path = config_path
        self._hangup = threading.Event()
        self._must_reply = False  # to `dasnet reload`
        # A program that was started with SIGHUP ignored (`nohup`) must outlive the terminal.
        self._in_terminal = _has_terminal() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
        self._log = structlog.get_logger()

    def __enter__(self) -> Self:
        set_event_on_signal(signal.SIGHUP, self._hangup)
        self._socket = bound(zmq.REP, Endpoints.reload, high_water=4, linger_ms=500)
        return self

    def __exit__(self, *_: object) -> None:
        if self._must_reply:
            self._reply(Reply(rejected="the program is stopping"))
        self._socket.close()

    def terminal_closed(self) -> bool:
        """Return whether SIGHUP came from a terminal that was closed, which ends the program."""
        return self._hangup.is_set() and self._in_terminal and not _has_terminal()

    def due(self) -> bool:
        """Return whether a reload was requested; `reject` or `applied` must follow."""
        if self._hangup.is_set():
            self._hangup.clear()
            return True
        try:  # a malformed request can be polled, but not received
            requested = os.fsdecode(self._socket.recv_multipart(flags=zmq.DONTWAIT)[0])
        except zmq.Again:
            return False
        self._must_reply = True
        if _is_same(requested, self._path):
            return True
        self._reply(
            Reply(rejected=f"{requested[:200]!r}: expected {self._path}, with which the program in this folder runs")
        )
        return False

    def reject(self, reason: str) -> None:
        """Log and reply that the configuration was rejected."""
        self._log.error("configuration rejected, the running one stays in use", reason=reason)
        self._reply(Reply(rejected=reason))

    def applied(self, change: Change) -> None:
        """Log and reply what has changed."""
        for line in change.lines:
            self._log.info("configuration reloaded", result=line)
        self._reply(Reply(lines=change.lines))

    def _reply(self, reply: Reply) -> None:
        if self._must_reply:
            self._must_reply = False
            with suppress(zmq.ZMQError):  # the command that requested it has ended
                self._socket.send(msgspec.json.encode(reply), flags=zmq.DONTWAIT)


def _is_same(requested: str, path: Path) -> bool:
    try:
        return requested == str(path) or path.samefile(requested)
    except (OSError, ValueError):  # a file is missing, or the request is not a path
        return False


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def request_reload(config_path: Path) -> list[str]:
    """Let the program that runs with this configuration read it again; return what has changed.

    Raise ConfigError where it rejects the file, DasnetError where no program runs.
    """
    path = config_path.absolute()
    run_dir, _, fault = run_folder_of(path)
    not_running = fault or DasnetError(
        f"{run_dir}: no program runs in this folder; expected the run_dir of a running one, which cannot be changed by "
        "reload (if it is relative, run this command in the folder where the program was started)"
    )
    try:
        os.chdir(run_dir)  # see `Endpoints`
    except OSError:
        raise not_running from None
    socket = connected(zmq.REQ, Endpoints.reload, high_water=1)
    try:
        if not socket.poll(CONNECT_TIMEOUT_MS, zmq.POLLOUT):
            raise not_running
        socket.send(os.fsencode(path))
        if not socket.poll(round(RELOAD_TIMEOUT_S * 1000)):
            raise DasnetError(
                f"{run_dir}: no reply from the running program within {RELOAD_TIMEOUT_S:.0f} s; see its log"
            )
        reply = msgspec.json.decode(socket.recv(), type=Reply)
    finally:
        socket.close(0)
    if reply.rejected:
        raise ConfigError(reply.rejected)
    return reply.lines


def run_folder_of(path: Path) -> tuple[Path, Config | None, ConfigError | None]:
    """Return the run folder of a configuration file, and its content, or what is wrong with it.

    It may refer to secrets that only the running program has: that program must decide.
    """
    try:
        config = load(path)
        return config.run_dir, config, None
    except ConfigError as error:
        fault = ConfigError(one_line(error))
    try:
        written = yaml.safe_load(path.read_text(encoding="utf-8"))["run_dir"]
    except (OSError, ValueError, yaml.YAMLError, RecursionError, KeyError, TypeError):
        written = None
    run_dir = Path(written if isinstance(written, str) else Config.model_fields["run_dir"].default)
    return run_dir.expanduser().absolute(), None, fault
