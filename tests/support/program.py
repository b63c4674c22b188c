"""The real program as a child process, for tests: started, read, asked, stopped; nothing of it may be left."""

import contextlib
import ctypes
import os
import queue
import re
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self
from unittest.mock import patch

import av
from prometheus_client.parser import text_string_to_metric_families

from pipeline import redaction
from pipeline.cli import main
from pipeline.runtime.parent import PR_SET_PDEATHSIG

REPOSITORY = Path(__file__).parents[2]
CLIPS = REPOSITORY / "tests" / "data" / "clips"
DASNET = [sys.executable, "-m", "pipeline"]


def die_with_parent() -> None:
    """In a child that is being started: a process of tests that is ended because it overran leaves none."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def dasnet(*arguments: str | Path, timeout_s: float = 150, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    """A command that ends by itself."""
    command = [*DASNET, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, cwd=cwd)


def in_process(
    entry: Callable[[], int | None], *arguments: str | Path, cwd: Path = REPOSITORY
) -> subprocess.CompletedProcess[str]:
    """Call a command's entry point in this process, which has imported torch already; return what a process would."""
    with (
        contextlib.chdir(cwd),
        _written_to(1, "stdout") as out,
        _written_to(2, "stderr") as err,
        patch.object(sys, "argv", [entry.__module__, *map(str, arguments)]),
        patch.dict(os.environ),
        patch.multiple(redaction, _known=set(redaction._known), _redactor=redaction._redactor),
    ):
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            code = entry() or 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return subprocess.CompletedProcess([*map(str, arguments)], code, "".join(out), "".join(err))


def dasnet_in_process(*arguments: str | Path, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    """A command that ends by itself, without the time that a process takes to import what this one has.

    What a process remembers would help to hide a secret: whether one is shown, only `dasnet` proves.
    """
    return in_process(main, *arguments, cwd=cwd)


def script_in_process(name: str, *arguments: str | Path, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    """One of `scripts/`, likewise."""

    def entry() -> None:
        runpy.run_path(str(REPOSITORY / "scripts" / name), run_name="__main__")

    return in_process(entry, *arguments, cwd=cwd)


@contextlib.contextmanager
def _written_to(descriptor: int, name: str) -> Iterator[list[str]]:
    """Yield a list that holds, at the end, what Python and C libraries wrote to a standard stream."""
    written: list[str] = []
    with tempfile.TemporaryFile() as file, patch.object(sys, name, open(descriptor, "w", closefd=False)):
        before = os.dup(descriptor)
        os.dup2(file.fileno(), descriptor)
        try:
            yield written
        finally:
            getattr(sys, name).flush()
            os.dup2(before, descriptor)
            os.close(before)
            file.seek(0)
            written.append(file.read().decode())


def shortened(clip: Path, frames: int, path: Path) -> Path:
    """The first frames of a clip, as a video of its own."""
    with av.open(str(clip)) as whole, av.open(str(path), "w") as cut:
        source = whole.streams.video[0]
        stream = cut.add_stream("libx264", rate=source.average_rate)
        stream.width, stream.height, stream.pix_fmt = source.width, source.height, "yuv420p"
        for _, frame in zip(range(frames), whole.decode(video=0), strict=False):
            cut.mux(stream.encode(av.VideoFrame.from_ndarray(frame.to_ndarray(format="rgb24"), format="rgb24")))
        cut.mux(stream.encode(None))
    return path


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Running:
    """`with Running("run", config) as program:`; leaves with SIGTERM, and checks that nothing is left."""

    def __init__(self, *arguments: str | Path, command: list[str] | None = None, cwd: Path = REPOSITORY) -> None:
        self._command = [*(command or DASNET), *map(str, arguments)]
        self._cwd = cwd
        self._sessions: set[int] = set()  # of all its starts
        self.lines: list[str] = []
        self._new: queue.Queue[str] = queue.Queue()

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            self._command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self._cwd,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        self._sessions.add(self.process.pid)
        threading.Thread(target=self._read, args=(self.process,), daemon=True).start()
        return self

    def _read(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.lines.append(line.rstrip("\n"))
            self._new.put(line)

    def wait_for_line(self, pattern: str, timeout_s: float = 60) -> re.Match[str]:
        """The first line, earlier or to come, in which the pattern is found."""
        deadline_s, seen = time.monotonic() + timeout_s, 0
        while time.monotonic() < deadline_s:
            while seen < len(self.lines):
                match = re.search(pattern, self.lines[seen])
                seen += 1
                if match:
                    return match
            try:
                self._new.get(timeout=0.2)
            except queue.Empty:
                if self.process.poll() is not None:
                    break
        raise AssertionError(f"no line with {pattern!r}; the program said:\n" + "\n".join(self.lines))

    def metrics(self) -> dict[str, float]:
        """Samples by `name{label="value",...}`, labels in the order of their names."""
        address = self.wait_for_line(r"metrics: (http\S+)")[1]
        with urllib.request.urlopen(address, timeout=5) as answer:
            text = answer.read().decode()
        return {
            sample.name + "{" + ",".join(f'{k}="{v}"' for k, v in sorted(sample.labels.items())) + "}": sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def wait_for_metric(self, name: str, at_least: float, timeout_s: float = 60) -> float:
        deadline_s = time.monotonic() + timeout_s
        value = -1.0
        while time.monotonic() < deadline_s:
            value = self.metrics().get(name, -1.0)
            if value >= at_least:
                return value
            time.sleep(0.2)  # an HTTP endpoint can only be asked again
        raise AssertionError(f"{name} is {value}, not {at_least}; the program said:\n" + "\n".join(self.lines))

    def children(self) -> dict[int, str]:
        """Command lines of this program's living processes, by process id."""
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                session = int((entry / "stat").read_text().rpartition(")")[2].split()[3])
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (OSError, ValueError):
                continue
            if session in self._sessions and command:
                found[int(entry.name)] = command
        return found

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 30) -> int:
        """The exit code.  Fails where a process is left."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(timeout_s)
        left = self.children()
        assert not left, f"processes left: {left}"
        return code

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
