"""One recording of a bulk replay: replayed into a hidden folder, which is renamed to DIR/<name>/ when it is whole.

In: a Clip.  Out: its folder as `dasnet replay` writes it, and `.done` in it, by which a later bulk replay knows that
nothing is left to do.  All nodes share the recordings and DIR; where one of them is an URI, the recording is fetched
and its results are stored by `pipeline.bulk.storage`, `.done` after all else.
"""

import hashlib
import pickle
import shutil
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import msgspec

from model.checkpoint import Loaded, load
from model.engine.engine import Engine
from model.errors import ModelError
from pipeline import __version__
from pipeline.bulk import storage
from pipeline.capture.images import sequence
from pipeline.checkpoints import checkpoint_path
from pipeline.errors import ConfigError, DasnetError
from pipeline.replay.options import ReplayOptions
from pipeline.replay.parquet import DATA_SET, TABLES, has_rows, remove_rows, write_rows
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
        path: of the recording, absolute: the same on every node; or an URI.
        name: of its folder.
        source: its name in the outputs.
        out: DIR, absolute; or an URI.
        options: the options of the replay.
        checkpoint: SHA-256 of the checkpoint that the driver has.
    """

    path: str
    name: str
    source: str
    out: str
    options: ReplayOptions
    checkpoint: str

    @property
    def folder(self) -> Path:
        """Return the folder of its outputs, of a DIR that is no URI."""
        return Path(self.out) / self.name

    @property
    def size_bytes(self) -> int:
        """Return the size of its file or of all its images."""
        return sum(size for _, size, _ in self._stamps())

    def last(self) -> Done | None:
        """Return the result of this very work: of the same files, options, checkpoint and version; None: not there."""
        try:
            data = self._read_done()
            done = msgspec.msgpack.decode(data, type=Done) if data is not None else None
        except (OSError, msgspec.MsgspecError):
            return None
        return done if done is not None and done.work == self._work() else None

    @property
    def is_done(self) -> bool:
        """Return whether nothing is left to do."""
        done = self.last()
        return done is not None and done.summary.complete and (not self.options.parquet or self._has_rows())

    def replay(self, work: str = "") -> Done:
        """Replay it and publish its folder, as the result of `work`, default: its own.

        Raise DasnetError, OSError, not for a broken recording.
        """
        loaded, engine = _engine(self.options.checkpoint, self.options.device, self.options.engine)
        if loaded.metadata.sha256 != self.checkpoint:
            raise ConfigError(f"checkpoint {loaded.metadata.sha256[:12]} here; expected {self.checkpoint[:12]}")
        work, unfinished = work or self._work(), Path(self.out) / UNFINISHED / f"{self.name}-{uuid4().hex}"
        try:
            replay = Replay(Path(self.path), self.name, self.source, unfinished, loaded, engine, self.options)
            summary = printable_summary(replay.run(lambda _done, _total: None))
            done = Done(work, summary, replay.thumbnails.by_track())
            (unfinished / DONE).write_bytes(msgspec.msgpack.encode(done))
            self._publish(unfinished)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        return done

    def replay_elsewhere(self) -> Done:
        """Fetch it, replay it and store its results, where a place is an URI.  Raise DasnetError, OSError."""
        work = self._work()
        with TemporaryDirectory(prefix="dasnet-") as scratch:
            near = self
            if storage.is_uri(self.path):
                near = replace(near, path=str(Path(scratch) / storage.name_of(self.path)))
                storage.fetch(self.path, Path(near.path))
            if storage.is_uri(self.out):
                near = replace(near, out=str(Path(scratch) / "out"))
            done = near.replay(work)
            if self.options.parquet:
                write_rows(near.folder)
            if storage.is_uri(self.out):
                self._store(Path(near.out))
        return done

    def _store(self, out: Path) -> None:
        """Replace its results at an URI by those below `out`; it is not done while they change."""
        shutil.rmtree(out / UNFINISHED, ignore_errors=True)
        older = storage.names(self.out, self.name) + self._rows()
        storage.remove(self.out, sorted(older, key=lambda name: name != f"{self.name}/{DONE}"))
        storage.store(out, self.out, last=[out / self.name / DONE])

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
        calibration = self.options.calibration.read_bytes() if self.options.calibration else None
        clip = replace(self, options=replace(self.options, parquet=False))  # made of the outputs
        parts = __version__, repr(clip), self._stamps(), calibration
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def _stamps(self) -> list[storage.Stamp]:
        if storage.is_uri(self.path):
            return [storage.stamp(self.path)]
        files = sequence(Path(self.path)) or [Path(self.path)]
        return [(str(file), (stat := file.stat()).st_size, str(stat.st_mtime_ns)) for file in files]

    def _read_done(self) -> bytes | None:
        if storage.is_uri(self.out):
            return storage.read(self.out, f"{self.name}/{DONE}")
        return (self.folder / DONE).read_bytes()

    def _has_rows(self) -> bool:
        return len(self._rows()) == len(TABLES) if storage.is_uri(self.out) else has_rows(self.folder)

    def _rows(self) -> list[str]:
        return [name for name in storage.names(self.out, DATA_SET) if name.endswith(f"/{self.name}.parquet")]


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
        if storage.is_uri(clip.path) or storage.is_uri(clip.out):
            if done is None or not clip.is_done:
                done = clip.replay_elsewhere()
            return done.summary.error
        if done is None or not done.summary.complete:
            done = clip.replay()
        if clip.options.parquet:
            write_rows(clip.folder)
    except (DasnetError, ModelError, OSError) as error:
        return str(error)
    return done.summary.error
