"""An output file of a replay: written as `<name>.partial`, renamed when closed."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self


class OutputFile(ABC):
    """An output file, closed at the end of a `with`, also by an exception."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._partial = path, partial(path)

    @abstractmethod
    def close(self) -> None:
        """Finish the file and rename it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class LinesFile(OutputFile):
    """A text file, written line by line."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._file = self._partial.open("wb")

    def add(self, line: bytes) -> None:
        """Append a line without its end."""
        self._file.write(line + b"\n")

    def close(self) -> None:
        """Finish the file and rename it."""
        if not self._file.closed:
            self._file.close()
            self._partial.replace(self._path)


def partial(path: Path) -> Path:
    """Return what an output is called while it is written."""
    return path.with_name(path.name + ".partial")
