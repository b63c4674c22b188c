"""Try it: one picture or short clip through the very commands of the product, in a process of its own.

In: an uploaded file.  Out: what `dasnet predict` or `dasnet replay` made of it, for ten minutes or until the next one.
One at a time, of bounded size, frames, memory and time, at the lowest priority, on the CPU (a GPU knows no priority):
the cameras come first.  Where memory runs out all the same, the kernel ends the trial before any worker.
"""

import asyncio
import contextlib
import ctypes
import os
import re
import resource
import secrets
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from pipeline.config.models import Config
from pipeline.errors import DasnetError, ImageError
from pipeline.imaging.frame_size import MAX_FRAME_PX
from pipeline.imaging.image_header import read_header
from pipeline.runtime.parent import PR_SET_PDEATHSIG

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
CLIPS = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".ts")
MAX_BYTES = 64 << 20
MAX_FRAMES = 300  # of a clip; what comes after is not searched
TIME_LIMIT_S = 120.0
MAX_MEMORY_BYTES = 3 << 30  # of the child; libraries and network need 0.7 GB, each pixel searched up to 500 bytes
MAX_OUTPUT_BYTES = 1 << 30  # of each file that the child writes
KEPT_S = 600.0
ERROR_CHARACTERS = 500
_NO_MEMORY = re.compile(r"(?i)MemoryError|bad_alloc|out of memory|insufficient memory|(?:cannot|can't) allocate memory")


class TrialError(DasnetError):
    """Nothing came of it; the text is for whoever tried."""


class TrialBusyError(TrialError):
    pass


class TrialFile(msgspec.Struct, frozen=True):
    name: str
    bytes: int
    url: str


class TrialResult(msgspec.Struct, frozen=True):
    id: str
    kind: Literal["picture", "clip"]
    time_s: float  # of the whole command, loading the network included
    frames_limit: int | None  # of a clip: so many frames are searched at most
    result: dict[str, Any]  # the picture's boxes, or the clip's summary, as the command wrote it
    files: list[TrialFile]


class Trials:
    """Belongs to the event loop's thread."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._folder = config.run_dir / "try"
        self._busy = False
        self._child: asyncio.subprocess.Process | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self.remove()  # what a dead console left

    async def run(self, name: str, content: AsyncIterator[bytes]) -> TrialResult:
        """`name` says by its ending what it is.  Raises TrialError."""
        suffix = Path(name[-200:]).suffix.lower()
        if suffix not in PICTURES + CLIPS:
            raise TrialError(f"a file ending in {suffix!r}; allowed: {', '.join(PICTURES + CLIPS)}")
        if self._busy:
            raise TrialBusyError("another file is being searched; try again in a moment")
        self._busy = True
        try:
            self.remove()
            upload = self._folder / "upload" / f"input{suffix}"
            upload.parent.mkdir(parents=True, mode=0o700)
            await _save(upload, content)
            if suffix in PICTURES:
                await asyncio.to_thread(_check_image, upload)
            return await self._search(upload, "picture" if suffix in PICTURES else "clip")
        except BaseException:
            self.remove()
            raise
        finally:
            self._busy = False

    async def _search(self, upload: Path, kind: Literal["picture", "clip"]) -> TrialResult:
        name = secrets.token_hex(8)
        out = self._folder / name
        started_s = time.monotonic()
        await self._command(self._arguments(kind, upload, out))
        time_s = time.monotonic() - started_s
        folder, written = (out, "input_boxes.json") if kind == "picture" else (out / "input", "summary.json")
        try:
            result = msgspec.json.decode((folder / written).read_bytes(), type=dict[str, Any])
        except (OSError, msgspec.DecodeError) as error:
            raise TrialError("the command left no result") from error
        paths = sorted(path for path in folder.iterdir() if path.is_file())
        files = [TrialFile(path.name, path.stat().st_size, f"/api/v1/trials/{name}/{path.name}") for path in paths]
        upload.unlink()
        self._expiry = asyncio.get_running_loop().call_later(KEPT_S, self.remove)
        return TrialResult(name, kind, round(time_s, 3), MAX_FRAMES if kind == "clip" else None, result, files)

    def _arguments(self, kind: str, upload: Path, out: Path) -> list[str]:
        model = self._config.model
        arguments = ["predict" if kind == "picture" else "replay", str(upload), "--out", str(out)]
        arguments += ["--device", "cpu", "--engine", "auto" if model.engine == "cuda" else model.engine]
        if kind == "clip":
            arguments += ["--end", str(MAX_FRAMES)]
        if model.checkpoint is not None:
            arguments += ["--checkpoint", str(model.checkpoint)]
        if model.threshold is not None:
            arguments += ["--threshold", str(model.threshold)]
        return arguments

    async def _command(self, arguments: list[str]) -> None:
        """Raises TrialError with what the command said where it failed or took too long."""
        self._child = child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pipeline", *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ | {"OPENCV_IO_MAX_IMAGE_PIXELS": str(MAX_FRAME_PX)},  # should a header lie to us, not to it
            start_new_session=True,
            preexec_fn=_limit,
        )
        try:
            _, said = await asyncio.wait_for(child.communicate(), TIME_LIMIT_S)
        except TimeoutError:
            raise TrialError(f"not done within {TIME_LIMIT_S:g} s; try a shorter or smaller one") from None
        finally:
            self._kill()
            await child.wait()
            self._child = None
        if child.returncode:
            raise TrialError(_fault(child.returncode, said.decode(errors="replace"), self._folder / "upload"))

    def _kill(self) -> None:
        if self._child is not None and self._child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)

    def path(self, trial: str, name: str) -> Path | None:
        """A file of the last result; None: there is none, or no longer."""
        for folder in (self._folder / trial, self._folder / trial / "input"):
            path = folder / name
            if trial.isalnum() and Path(name).name == name and path.is_file() and not path.is_symlink():
                return path
        return None

    def remove(self) -> None:
        """The last result."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def close(self) -> None:
        self._kill()
        self.remove()


async def _save(path: Path, content: AsyncIterator[bytes]) -> None:
    size = 0
    with path.open("wb") as file:
        async for block in content:
            size += len(block)
            if size > MAX_BYTES:
                raise TrialError(f"a file of more than {MAX_BYTES >> 20} MiB; allowed: up to {MAX_BYTES >> 20} MiB")
            file.write(block)
    if not size:
        raise TrialError("an empty file")


def _check_image(upload: Path) -> None:
    """Raise TrialError for what declares to be too large, before a process is started for it."""
    try:
        with upload.open("rb") as file:
            read_header(file)
    except ImageError as error:
        raise TrialError(f"{upload.name}: {error}") from error


def _fault(code: int, said: str, folder: Path) -> str:
    """Return the command's last error, without the folder that nobody knows, or that it lacked memory or time."""
    if code in (-signal.SIGKILL, -signal.SIGABRT) or _NO_MEMORY.search(said):
        return f"needs more than {MAX_MEMORY_BYTES >> 30} GiB of memory; try a smaller one"
    if code == -signal.SIGXCPU:
        return f"not done within {TIME_LIMIT_S:g} s; try a shorter or smaller one"
    lines = [line for line in said.replace(f"{folder}{os.sep}", "").splitlines() if line.startswith("error:")]
    return (lines[-1].removeprefix("error: ") if lines else "the search failed")[:ERROR_CHARACTERS]


def _limit() -> None:
    """In the child: behind everything else, within limits, ended first, and not longer than this process."""
    os.nice(19)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    cpu_s = int(TIME_LIMIT_S) * len(os.sched_getaffinity(0))  # should this process not come to stop it
    for limit, most in (
        (resource.RLIMIT_DATA, MAX_MEMORY_BYTES),  # not RLIMIT_AS: libraries reserve far more than they use
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, MAX_OUTPUT_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(limit)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (most, most))
    with contextlib.suppress(OSError), Path("/proc/self/oom_score_adj").open("wb", buffering=0) as file:
        file.write(b"1000")
