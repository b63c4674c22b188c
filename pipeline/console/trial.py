"""Try it: process an uploaded image or short clip with `dasnet predict` or `dasnet replay`, in a child process.

Results are kept for ten minutes or until the next trial.  Cameras have priority: one trial runs at a time, limited in
size, frames, memory and time, at the lowest priority, on the CPU (GPUs have no priorities).  If memory runs out, the
kernel kills the trial before any worker.
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

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
CLIPS = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".ts")
MAX_BYTES = 64 << 20
MAX_FRAMES = 300  # per clip; later ones are not processed
TIME_LIMIT_S = 120.0
MAX_MEMORY_BYTES = 3 << 30  # of the child; libraries and network need 0.7 GB, each pixel up to 500 bytes
MAX_OUTPUT_BYTES = 1 << 30  # per file
KEPT_S = 600.0
ERROR_CHARACTERS = 500
_NO_MEMORY = re.compile(r"(?i)MemoryError|bad_alloc|out of memory|insufficient memory|(?:cannot|can't) allocate memory")


class TrialError(DasnetError):
    """A failed trial; the message is shown to the user."""


class TrialBusyError(TrialError):
    """Another trial is running."""


class TrialFile(msgspec.Struct, frozen=True):
    """An output file of a trial."""

    name: str
    bytes: int
    url: str


class TrialResult(msgspec.Struct, frozen=True):
    """Result of a trial."""

    id: str
    kind: Literal["picture", "clip"]
    time_s: float  # of the whole command, including loading the network
    frames_limit: int | None  # clips: maximum number of processed frames
    result: dict[str, Any]  # boxes of an image, or summary of a clip, as written by the command
    files: list[TrialFile]


class Trials:
    """Runs trials; to be used in the event loop's thread only."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._folder = config.run_dir / "try"
        self._busy = False
        self._child: asyncio.subprocess.Process | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self.remove()  # left by a killed console

    async def run(self, name: str, content: AsyncIterator[bytes]) -> TrialResult:
        """Run a trial; the extension of `name` gives the file format.

        Raises:
            TrialError: It failed, or another one is running.
        """
        suffix = Path(name[-200:]).suffix.lower()
        if suffix not in IMAGES + CLIPS:
            raise TrialError(f"file extension {suffix!r}; must be one of {', '.join(IMAGES + CLIPS)}")
        if self._busy:
            raise TrialBusyError("another trial is running; try again later")
        self._busy = True
        try:
            self.remove()
            upload = self._folder / "upload" / f"input{suffix}"
            upload.parent.mkdir(parents=True, mode=0o700)
            await _save(upload, content)
            if suffix in IMAGES:
                await asyncio.to_thread(_check_image, upload)
            return await self._process(upload, "picture" if suffix in IMAGES else "clip")
        except BaseException:
            self.remove()
            raise
        finally:
            self._busy = False

    async def _process(self, upload: Path, kind: Literal["picture", "clip"]) -> TrialResult:
        name = secrets.token_hex(8)
        out = self._folder / name
        started_s = time.monotonic()
        await self._command(self._arguments(kind, upload, out))
        time_s = time.monotonic() - started_s
        folder, written = (out, "input_boxes.json") if kind == "picture" else (out / "input", "summary.json")
        try:
            result = msgspec.json.decode((folder / written).read_bytes(), type=dict[str, Any])
        except (OSError, msgspec.DecodeError) as error:
            raise TrialError("the command wrote no result") from error
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
        """Run a command; raise TrialError with its error message where it fails or takes too long."""
        self._child = child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pipeline", *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ | {"OPENCV_IO_MAX_IMAGE_PIXELS": str(MAX_FRAME_PX)},  # in case a header is wrong
            start_new_session=True,
            preexec_fn=_limit,
        )
        try:
            _, said = await asyncio.wait_for(child.communicate(), TIME_LIMIT_S)
        except TimeoutError:
            raise TrialError(f"not finished within {TIME_LIMIT_S:g} s; must be shorter or smaller") from None
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
        """Return a file of the last result, or None."""
        for folder in (self._folder / trial, self._folder / trial / "input"):
            path = folder / name
            if trial.isalnum() and Path(name).name == name and path.is_file() and not path.is_symlink():
                return path
        return None

    def remove(self) -> None:
        """Delete the last result."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def close(self) -> None:
        """Stop a running trial, and delete its files."""
        self._kill()
        self.remove()


async def _save(path: Path, content: AsyncIterator[bytes]) -> None:
    size = 0
    with path.open("wb") as file:
        async for block in content:
            size += len(block)
            if size > MAX_BYTES:
                raise TrialError(f"file larger than {MAX_BYTES >> 20} MiB; must be at most {MAX_BYTES >> 20} MiB")
            file.write(block)
    if not size:
        raise TrialError("empty file; must be an image or a video")


def _check_image(upload: Path) -> None:
    """Raise TrialError where the header declares too large an image, before a process is started for it."""
    try:
        with upload.open("rb") as file:
            read_header(file)
    except ImageError as error:
        raise TrialError(f"{upload.name}: {error}") from error


def _fault(code: int, said: str, folder: Path) -> str:
    """Return the command's last error without the internal folder, or that it ran out of memory or time."""
    if code in (-signal.SIGKILL, -signal.SIGABRT) or _NO_MEMORY.search(said):
        return f"needs more than {MAX_MEMORY_BYTES >> 30} GiB of memory; must be smaller"
    if code == -signal.SIGXCPU:
        return f"not finished within {TIME_LIMIT_S:g} s; must be shorter or smaller"
    lines = [line for line in said.replace(f"{folder}{os.sep}", "").splitlines() if line.startswith("error:")]
    return (lines[-1].removeprefix("error: ") if lines else "processing failed")[:ERROR_CHARACTERS]


def _limit() -> None:
    """In the child: set the lowest priority, limits, the first place for the OOM killer, and to die with the parent."""
    os.nice(19)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    cpu_s = int(TIME_LIMIT_S) * len(os.sched_getaffinity(0))  # in case this process cannot stop it
    for limit, most in (
        (resource.RLIMIT_DATA, MAX_MEMORY_BYTES),  # not RLIMIT_AS: libraries reserve more than they use
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, MAX_OUTPUT_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(limit)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (most, most))
    with contextlib.suppress(OSError), Path("/proc/self/oom_score_adj").open("wb", buffering=0) as file:
        file.write(b"1000")
