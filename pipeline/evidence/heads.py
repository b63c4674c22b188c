"""Signed heads of the evidence log: its size and root at a time.

In: a log and a key.  Out: `evidence/heads.jsonl`, one JSON object per head.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pipeline.evidence.log import EvidenceError, read_lines
from pipeline.evidence.signing import is_signed, public_hex


class Head(msgspec.Struct, frozen=True):
    """A signed head; digests, key and signature are hexadecimal digits."""

    tree_size: int
    root_hash: str
    time_utc_ns: int
    key: str = ""  # public
    signature: str = ""

    @property
    def signed_text(self) -> bytes:
        """Return what is signed."""
        return f"dasnet evidence log\n{self.tree_size}\n{self.root_hash}\n{self.time_utc_ns}\n".encode()

    @property
    def is_signed(self) -> bool:
        """Return whether the signature is that of its key."""
        return is_signed(self.signed_text, self.signature, self.key)


def sign_head(tree_size: int, root: bytes, time_utc_ns: int, key: Ed25519PrivateKey) -> Head:
    """Return a head with its signature."""
    head = Head(tree_size, root.hex(), time_utc_ns)
    signature = key.sign(head.signed_text).hex()
    return msgspec.structs.replace(head, key=public_hex(key.public_key()), signature=signature)


def append_head(path: Path, head: Head) -> None:
    """Append a head, synced to disk.  Raise EvidenceError."""
    line = msgspec.json.encode(head) + b"\n"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            if os.fstat(descriptor).st_size and os.pread(descriptor, 1, os.fstat(descriptor).st_size - 1) != b"\n":
                line = b"\n" + line  # a crash left a partial line
            if os.write(descriptor, line) < len(line):
                raise OSError(0, "disk full")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise EvidenceError(f"{path}: {error.strerror}") from error


def read_heads(path: Path) -> Iterator[Head | None]:
    """Yield the heads of a file in their order; None: a line that is none.  Raise OSError."""
    for line in read_lines(path):
        try:
            yield msgspec.json.decode(line, type=Head)
        except msgspec.DecodeError:
            yield None


def newest_head(path: Path) -> Head | None:
    """Return the newest head, or None.  Raise OSError."""
    newest = None
    if path.exists():
        for head in read_heads(path):
            newest = head or newest
    return newest
