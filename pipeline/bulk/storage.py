"""Recordings and results at URIs that fsspec opens: `s3://BUCKET/PATH`, `http://...`, others; found, fetched, stored.

Every failure is a DasnetError that names the place and whether it is credentials, space, the connection, or the place
itself.  No message contains a user, a password or a query.
"""

import errno
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote, urlsplit

from pipeline.capture.images import natural_order
from pipeline.capture.video_file import VIDEO_SUFFIXES
from pipeline.errors import ConfigError, DasnetError

NO_SPACE = re.compile(r"quota|no space|storage ?full|insufficient ?storage|\b507\b", re.IGNORECASE)
NO_CREDENTIALS = re.compile(r"credential|token|access ?key|\b40[13]\b|forbidden|unauthori[sz]ed", re.IGNORECASE)
PROBE = ".dasnet"
Stamp = tuple[str, int, str]


def is_uri(place: str) -> bool:
    """Return whether a place is an URI of another kind than `file`."""
    return "://" in place and not place.startswith("file://")


def local_path(place: str) -> Path:
    """Return the path of a place that is no URI, or one of the kind `file`."""
    return Path(unquote(urlsplit(place).path)) if place.startswith("file://") else Path(place)


def name_of(uri: str) -> str:
    """Return the name of a file."""
    return unquote(urlsplit(uri).path).rpartition("/")[2]


def shown(uri: str) -> str:
    """Return an URI for messages."""
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def find_videos(uri: str) -> list[str]:
    """Return a video itself, and all videos in and below a folder, in natural order.  Raise DasnetError."""
    with _opened(uri) as (files, path):
        if _is_video(path):
            files.info(path)
            return [uri]
        inside = sorted((Path(str(found)) for found in files.find(path) if _is_video(str(found))), key=natural_order)
        if not inside:
            raise DasnetError(f"{shown(uri)}: contains no recording; expected a video ({' '.join(VIDEO_SUFFIXES)})")
        return [f"{uri.rstrip('/')}/{found.relative_to(path.rstrip('/'))}" for found in inside]


def stamp(uri: str) -> Stamp:
    """Return what changes when a file is replaced: its place, size, and tag or time.  Raise DasnetError."""
    with _opened(uri) as (files, path):
        about = files.info(path)
    version = about.get("ETag") or about.get("LastModified") or about.get("mtime") or about.get("created") or ""
    return shown(uri), int(about.get("size") or 0), str(version)


def fetch(uri: str, target: Path) -> None:
    """Copy a file here.  Raise DasnetError."""
    with _opened(uri) as (files, path):
        files.get_file(path, str(target))


def read(uri: str, name: str) -> bytes | None:
    """Return the content of a file below an URI, None where there is none.  Raise DasnetError."""
    with _opened(uri) as (files, path):
        place = f"{path.rstrip('/')}/{name}"
        return bytes(files.cat_file(place)) if files.exists(place) else None


def names(uri: str, folder: str) -> list[str]:
    """Return all files in and below `folder` of an URI, relative to the URI.  Raise DasnetError."""
    with _opened(uri) as (files, path):
        root = path.rstrip("/")
        return [str(Path(str(found)).relative_to(root)) for found in files.find(f"{root}/{folder}")]


def store(folder: Path, uri: str, last: Sequence[Path] = ()) -> None:
    """Copy all files below a folder to the same places below an URI, `last` after all others.  Raise DasnetError."""
    with _opened(uri) as (files, path):
        inside = sorted(file for file in folder.rglob("*") if file.is_file())
        for file in [*(file for file in inside if file not in last), *last]:
            place = f"{path.rstrip('/')}/{file.relative_to(folder)}"
            files.put_file(str(file), place)


def remove(uri: str, files_there: Sequence[str]) -> None:
    """Remove files below an URI, in their order.  Raise DasnetError."""
    with _opened(uri) as (files, path):
        for name in files_there:
            files.rm_file(f"{path.rstrip('/')}/{name}")


def check_writable(uri: str) -> None:
    """Write and remove a small file.  Raise DasnetError."""
    with TemporaryDirectory(prefix="dasnet-") as scratch:
        (Path(scratch) / PROBE).write_bytes(b"\n")
        store(Path(scratch), uri)
    remove(uri, [PROBE])


@contextmanager
def _opened(uri: str) -> Iterator[tuple[Any, str]]:
    """Yield fsspec's file system and path of an URI; raise DasnetError for what is raised meanwhile."""
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise ConfigError(f'{shown(uri)}: needs fsspec, not installed here: pip install "dasnet[ray]"') from error
    try:
        files, path = url_to_fs(uri, use_listings_cache=False)
        yield files, str(path)
    except DasnetError:
        raise
    except ImportError as error:
        raise ConfigError(f"{shown(uri)}: needs a package that is not installed here: {error}") from error
    except Exception as error:  # each file system raises what its library does
        raise DasnetError(f"{shown(uri)}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    text = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
    number = getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT) or NO_SPACE.search(text):
        return f"no space left there: {text}"
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    if isinstance(error, PermissionError) or NO_CREDENTIALS.search(text) or "Credentials" in type(error).__name__:
        return f"refused; expected credentials that are valid and not expired, in the environment: {text}"
    if isinstance(error, (ConnectionError, TimeoutError)) or re.search("Connect|Timeout", type(error).__name__):
        return f"cannot be reached: {text}"
    return text


def _is_video(path: str) -> bool:
    return urlsplit(path).path.lower().endswith(VIDEO_SUFFIXES)
