"""A clip that arrives in parts: `<alert>.partial.mp4`, until all of it is there and its digest is right."""

import hashlib
import os
from pathlib import Path

from pipeline.store.clips import ClipRecord, partial, record_path, video_path, write_record


class IncomingClip:
    """The file so far, which an earlier process may have begun.  All raise OSError."""

    def __init__(self, folder: Path, record: ClipRecord, *, is_begun: bool) -> None:
        self.record = record
        self._video, self._about = video_path(folder, record.alert), record_path(folder, record.alert)
        self._partial = partial(self._video)
        self.size_bytes = self._partial.stat().st_size if is_begun and self._partial.exists() else 0  # so far

    def append(self, data: memoryview) -> None:
        """Append a part; what would exceed the clip is left out."""
        with self._partial.open("r+b" if self.size_bytes else "wb") as file:
            file.seek(self.size_bytes)
            self.size_bytes += file.write(data[: max(0, self.record.size_bytes - self.size_bytes)])

    @property
    def is_all_here(self) -> bool:
        """Return whether no part is missing."""
        return self.size_bytes >= self.record.size_bytes

    def finish(self) -> bool:
        """Give the clip its name, if its digest is right; else start anew."""
        with self._partial.open("rb") as file:
            os.fsync(file.fileno())
            is_right = hashlib.file_digest(file, "sha256").hexdigest() == self.record.sha256
        if not is_right:
            self.size_bytes = 0
            return False
        self._partial.replace(self._video)
        write_record(self._about, self.record)
        partial(self._about).unlink(missing_ok=True)
        return True
