"""A reload: the configuration is read again while the program runs, and cameras come, go or change.

    SIGHUP, `dasnet reload` -> supervisor: reads and validates the file; refuses one that is wrong, and the site goes on
    1. capture workers of cameras that were removed or changed: stopped
    2. segmentation, then tracking, then console: are handed the configuration; each says when it is in use
    3. capture workers of cameras that were added or changed: started

In this order nothing is sent of a camera to one that does not know it.  All other workers run on, and lose no frame.
Only cameras change; what else differs from the running configuration is named, and waits for a restart.
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

from pipeline.config.file import load
from pipeline.config.models import Config
from pipeline.errors import ConfigError, DasnetError
from pipeline.runtime.process import set_event_on_signal
from pipeline.transport.endpoints import Endpoints
from pipeline.transport.sockets import bound, connected

CONNECT_MS = 1000  # of a socket on this host
ANSWER_S = 150.0  # a segmentation worker that is just starting may take long


class Reply(msgspec.Struct):
    """The supervisor's, to `dasnet reload`."""

    refused: str = ""  # why; empty: it was applied, and `lines` say what
    lines: list[str] = []


@dataclass(frozen=True)
class Change:
    """What a reload does."""

    config: Config  # in use from then on
    added: list[str]  # ids of cameras
    removed: list[str]
    changed: list[str]
    fixed: list[str]  # keys whose values in the file wait for a restart

    @property
    def lines(self) -> list[str]:
        cameras = {"added": self.added, "removed": self.removed, "changed": self.changed}
        lines = [f"cameras {what}: {', '.join(names)}" for what, names in cameras.items() if names]
        if self.fixed:
            lines.append(f"cannot be changed by reload, restart to apply: {', '.join(self.fixed)}")
        return lines or ["nothing has changed"]


def change(running: Config, read: Config) -> Change:
    """From the configuration in use to that of the file.  Raises ConfigError."""
    before, after = ({camera.id: camera for camera in config.cameras} for config in (running, read))
    away = [camera for camera in read.cameras if camera.host is not None]
    if away and running.link is None:
        raise ConfigError(
            f"camera {away[0].id!r} is on host {away[0].host!r}, and link cannot be changed by reload; restart to apply"
        )
    return Change(
        config=running.with_cameras_of(read),
        added=[name for name in after if name not in before],
        removed=[name for name in before if name not in after],
        changed=[name for name in after if name in before and after[name] != before[name]],
        fixed=sorted(_differing(_fixed(running), _fixed(read), "")),
    )


def _fixed(config: Config) -> dict[str, Any]:
    return config.model_dump(exclude={"cameras"})


def _differing(before: Any, after: Any, key: str) -> Iterator[str]:
    """Dotted keys."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in before.keys() | after.keys():
            yield from _differing(before.get(name), after.get(name), f"{key}.{name}" if key else name)
    elif before != after:
        yield key


def one_line(error: ConfigError) -> str:
    return "; ".join(str(error).splitlines())


class Requests:
    """The supervisor's side: what asks for a reload, one after the other."""

    def __init__(self, config_path: Path) -> None:
        self._path = config_path
        self._hangup = threading.Event()
        self._asking = False  # `dasnet reload`, which waits for its answer
        # Whoever starts a program with SIGHUP ignored (`nohup`) wants it to outlive the terminal.
        self._in_terminal = _has_terminal() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
        self._log = structlog.get_logger()

    def __enter__(self) -> Self:
        set_event_on_signal(signal.SIGHUP, self._hangup)
        self._socket = bound(zmq.REP, Endpoints.reload, high_water=4, linger_ms=500)
        return self

    def __exit__(self, *_: object) -> None:
        if self._asking:
            self._answer(Reply(refused="the program is stopping"))
        self._socket.close()

    def terminal_closed(self) -> bool:
        """It sends SIGHUP too, and ends the program as ever."""
        return self._hangup.is_set() and self._in_terminal and not _has_terminal()

    def due(self) -> bool:
        """Somebody asks; `refuse` or `applied` must follow."""
        if self._hangup.is_set():
            self._hangup.clear()
            return True
        try:  # what is no request of ZeroMQ's can be polled, but not received
            asked = os.fsdecode(self._socket.recv_multipart(flags=zmq.DONTWAIT)[0])
        except zmq.Again:
            return False
        self._asking = True
        if _same(asked, self._path):
            return True
        self._answer(Reply(refused=f"{asked[:200]!r}: the program in this folder runs with {self._path}"))
        return False

    def refuse(self, reason: str) -> None:
        self._log.error("configuration refused, the running one stays in use", reason=reason)
        self._answer(Reply(refused=reason))

    def applied(self, change: Change) -> None:
        for line in change.lines:
            self._log.info("configuration reloaded", result=line)
        self._answer(Reply(lines=change.lines))

    def _answer(self, answer: Reply) -> None:
        if self._asking:
            self._asking = False
            with suppress(zmq.ZMQError):  # whoever asked is gone
                self._socket.send(msgspec.json.encode(answer), flags=zmq.DONTWAIT)


def _same(asked: str, path: Path) -> bool:
    try:
        return asked == str(path) or path.samefile(asked)
    except (OSError, ValueError):  # one is not there, or what was asked for is no path
        return False


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def ask(config_path: Path) -> list[str]:
    """Let the program that runs with this configuration read it again; what it did.

    Raises DasnetError where it refuses, or where none runs.
    """
    path = config_path.absolute()
    run_dir, fault = _run_dir(path)
    nobody = fault or DasnetError(
        f"{run_dir}: no program runs in this folder; expected the run_dir of a running one, which cannot be changed by "
        "reload (where it is relative, call this command from where that was started)"
    )
    try:
        os.chdir(run_dir)  # see `Endpoints`
    except OSError:
        raise nobody from None
    socket = connected(zmq.REQ, Endpoints.reload, high_water=1)
    try:
        if not socket.poll(CONNECT_MS, zmq.POLLOUT):
            raise nobody
        socket.send(os.fsencode(path))
        if not socket.poll(round(ANSWER_S * 1000)):
            raise DasnetError(f"{run_dir}: the running program has not answered for {ANSWER_S:.0f} s; see its log")
        answer = msgspec.json.decode(socket.recv(), type=Reply)
    finally:
        socket.close(0)
    if answer.refused:
        raise ConfigError(answer.refused)
    return answer.lines


def _run_dir(path: Path) -> tuple[Path, ConfigError | None]:
    """Also of a file that is wrong, with what is wrong, or that stands for secrets which only the running program has:
    that is the one to judge it.
    """
    try:
        return load(path).run_dir, None
    except ConfigError as error:
        fault = ConfigError(one_line(error))
    try:
        written = yaml.safe_load(path.read_text(encoding="utf-8"))["run_dir"]
    except (OSError, ValueError, yaml.YAMLError, RecursionError, KeyError, TypeError):
        written = None
    run_dir = Path(written if isinstance(written, str) else Config.model_fields["run_dir"].default)
    return run_dir.expanduser().absolute(), fault
