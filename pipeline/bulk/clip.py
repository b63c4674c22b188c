"""One recording of a bulk replay: replayed into a hidden folder, which is renamed to DIR/<name>/ when it is whole.

In: a Clip.  Out: its folder as `dasnet replay` writes it, and `.done` in it, by which a later bulk replay knows that
nothing is left to do.  All nodes share the recordings and DIR.
"""

import hashlib
import pickle
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from uuid import uuid4

import msgspec

from model.checkpoint import Loaded, load
from model.engine.engine import Engine
from model.errors import ModelError
from pipeline import __version__
from pipeline.capture.images import sequence
from pipeline.checkpoints import checkpoint_path
from pipeline.errors import ConfigError, DasnetError
from pipeline.replay.options import ReplayOptions
from pipeline.replay.parquet import has_rows, remove_rows, write_rows
from pipeline.replay.recording import Replay
from pipeline.replay.summary import Summary, printable_summary
from pipeline.replay.thumbnails import Thumbnail

DONE = ".done"
UNFINISHED = ".unfinished"  # the folder in DIR of clips that are being replayed


class Done(msgspec.Struct, frozen=True):
    """What `.done` contains: the work that was done, and the clip's part of the report."""

    work: str
    summary: Summary
    thumbnails: list[Thumbnail]


@dataclass(frozen=True)
class Clip:
    """A recording and what is to be done with it.

    Attributes:
        path: of the recording, absolute: the same on every node.
        name: of its folder.
        source: its name in the outputs.
        out: DIR, absolute.
        options: the options of the replay.
        checkpoint: SHA-256 of the checkpoint that the driver has.
    """

    path: Path
    name: str
    source: str
    out: Path
    options: ReplayOptions
    checkpoint: str

    @property
    def folder(self) -> Path:
        """Return the folder of its outputs."""
        return self.out / self.name

    @property
    def size_bytes(self) -> int:
        """Return the size of its file or of all its images."""
        return sum(file.stat().st_size for file in self._files())

    def last(self) -> Done | None:
        """Return the result of this very work: of the same files, options, checkpoint and version; None: not there."""
        try:
            done = msgspec.msgpack.decode((self.folder / DONE).read_bytes(), type=Done)
        except (OSError, msgspec.MsgspecError):
            return None
        return done if done.work == self._work() else None

    @property
    def is_done(self) -> bool:
        """Return whether nothing is left to do."""
        done = self.last()
        has_all = has_rows(self.folder) or not self.options.parquet
        return done is not None and done.summary.complete and has_all

    def replay(self) -> Done:
        """Replay it and publish its folder.  Raise DasnetError, OSError, not for a broken recording."""
        loaded, engine = _engine(self.options.checkpoint, self.options.device, self.options.engine)
        if loaded.metadata.sha256 != self.checkpoint:
            raise ConfigError(f"checkpoint {loaded.metadata.sha256[:12]} here; expected {self.checkpoint[:12]}")
        work, unfinished = self._work(), self.out / UNFINISHED / f"{self.name}-{uuid4().hex}"
        try:
            replay = Replay(self.path, self.name, self.source, unfinished, loaded, engine, self.options)
            summary = printable_summary(replay.run(lambda _done, _total: None))
            done = Done(work, summary, replay.thumbnails.by_track())
            (unfinished / DONE).write_bytes(msgspec.msgpack.encode(done))
            self._publish(unfinished)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        return done

    def _publish(self, unfinished: Path) -> None:
        """Rename the folder.  A folder cannot replace another: an older one is moved out of the way first."""
        remove_rows(self.folder)
        if self.folder.exists():
            older = unfinished.with_name(f"{unfinished.name}-older")
            self.folder.rename(older)
            shutil.rmtree(older, ignore_errors=True)
        unfinished.rename(self.folder)

    def _work(self) -> str:
        """Return a digest of all that decides the outputs; a file is known by its size and time of change."""
        files = [(str(file), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in self._files()]
        calibration = self.options.calibration.read_bytes() if self.options.calibration else None
        clip = replace(self, options=replace(self.options, parquet=False))  # made of the outputs
        parts = __version__, repr(clip), files, calibration
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def _files(self) -> Sequence[Path]:
        return sequence(self.path) or [self.path]


@lru_cache(maxsize=1)
def _engine(checkpoint: Path | None, device: str, kind: str) -> tuple[Loaded, Engine]:
    """Return checkpoint and engine; Ray's processes are used for one clip after another, and loading takes seconds."""
    loaded = load(checkpoint_path(checkpoint))
    return loaded, Engine(loaded, device=device, kind=kind)


def attempt(pickled: bytes) -> str | None:
    """Do what is left to do of a pickled Clip, in a task of Ray; return what failed, or None."""
    clip: Clip = pickle.loads(pickled)
    try:
        done = clip.last()
        if done is None or not done.summary.complete:
            done = clip.replay()
        if clip.options.parquet:
            write_rows(clip.folder)
    except (DasnetError, ModelError, OSError) as error:
        return str(error)
    return done.summary.error
