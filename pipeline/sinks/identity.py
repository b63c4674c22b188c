"""Ids of a site's cameras in other systems, unique in the world and the same after every restart."""

import hashlib
import uuid
from pathlib import Path

from pipeline.sinks.sink import SinkError

FILE = "site-id"  # in the run folder


def site_id(run_dir: Path) -> uuid.UUID:
    """Return the id of the site, which is made where there is none.  Raise SinkError."""
    path = run_dir / FILE
    try:
        if not path.exists():
            _make(path)
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SinkError(f"{path}: cannot be read or made ({error})") from error
    try:
        return uuid.UUID(text)
    except ValueError:
        raise SinkError(f"{path}: {text!r}; must be a UUID; delete the file for a new one") from None


def _make(path: Path) -> None:
    """Write a new id, unless another thread was faster: nobody reads half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = uuid.uuid4()
    temporary = path.with_name(f"{FILE}.{new}")
    temporary.write_text(f"{new}\n", encoding="ascii")
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()


def camera_id(site: uuid.UUID, camera: str) -> str:
    """Return the UUID of a camera, version 4 and in lower case as SAPIENT demands."""
    digest = hashlib.sha256(site.bytes + camera.encode()).digest()
    return str(uuid.UUID(bytes=digest[:16], version=4))
