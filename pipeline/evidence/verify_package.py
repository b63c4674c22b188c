"""Verify a package: every file, event and leaf in it, the proofs, and the signature.

In: a folder or zip file of `dasnet evidence export`.  Out: a report, as of a run folder.
"""

import hashlib
import zipfile
from collections.abc import Collection
from pathlib import Path

import msgspec

from pipeline.evidence.leaves import EventLeaf, FileLeaf, decode_leaf, sidecar_alert
from pipeline.evidence.log import EvidenceError
from pipeline.evidence.merkle import leaf_hash, root_from_proof
from pipeline.evidence.package import EVENTS, PROOF, Proof, ProvenLeaf
from pipeline.evidence.readable import readable_files
from pipeline.evidence.report import Report

MAX_BYTES = 4_000_000_000


def is_package(path: Path) -> bool:
    """Return whether a path is a package rather than a run folder or a configuration."""
    return (path / PROOF).is_file() or zipfile.is_zipfile(path)


def verify_package(path: Path, keys: Collection[str] = ()) -> Report:
    """Verify a package.

    Args:
        path: of a folder or zip file.
        keys: public keys, one of which must have signed; none: any.

    Raises:
        EvidenceError: it cannot be read, or is no package.
    """
    try:
        contents = _zipped(path) if path.is_file() else _in_folder(path)
        proof = msgspec.json.decode(contents.pop(PROOF), type=Proof)
    except KeyError:
        raise EvidenceError(f"{path}: is no package: it has no {PROOF}") from None
    except (OSError, zipfile.BadZipFile, msgspec.DecodeError) as error:
        raise EvidenceError(f"{path}: cannot be read ({error})") from error
    return _Check(contents, proof, keys).report


class _Check:
    def __init__(self, contents: dict[str, bytes], proof: Proof, keys: Collection[str]) -> None:
        self.report = Report(heads=1, signed_utc_ns=proof.head.time_utc_ns, keys=(proof.head.key,))
        self._left = contents  # what no leaf names yet
        self._proof = proof
        self._sidecar: bytes | None = None
        self._events: dict[str, str] = {}  # digest by id, of leaves
        if not proof.head.is_signed:
            self._find(f"{PROOF}: the signature of the head does not fit")
        elif keys and proof.head.key not in keys:
            self._find(f"{PROOF}: is signed by another key, {proof.head.key}")
        for leaf in proof.leaves:
            self._check_leaf(leaf)
        payloads = self._check_events(self._left.pop(EVENTS, b""))
        self._check_readable(payloads)
        for name in self._left:
            self._find(f"{name}: does not belong to the package")

    def _find(self, finding: str) -> None:
        self.report.findings.append(finding)

    def _check_leaf(self, proven: ProvenLeaf) -> None:
        line, head = proven.line.encode(), self._proof.head
        try:
            leaf = decode_leaf(line)
            proof = [bytes.fromhex(node) for node in proven.proof]
        except ValueError:
            self._find(f"{PROOF}: a leaf was changed: {proven.line[:60]}")
            return
        root = root_from_proof(leaf_hash(line), leaf.n, head.tree_size, proof)
        if root is None or root.hex() != head.root_hash:
            self._find(f"{PROOF}: leaf {leaf.n} ({leaf.__struct_config__.tag}) is not in the signed log")
        self.report.leaves += 1
        if isinstance(leaf, EventLeaf):
            self._events[leaf.id] = leaf.sha256
        elif isinstance(leaf, FileLeaf):
            self._check_file(leaf)

    def _check_file(self, leaf: FileLeaf) -> None:
        content = self._left.pop(leaf.file, None)
        self.report.files += 1
        if content is None:
            self._find(f"{leaf.file}: was removed")
        elif hashlib.sha256(content).hexdigest() != leaf.sha256:
            self._find(f"{leaf.file}: was changed")
        if sidecar_alert(leaf.file):
            self._sidecar = content

    def _check_events(self, data: bytes) -> list[bytes]:
        payloads = data.splitlines()
        for number, payload in enumerate(payloads, start=1):
            try:
                event = msgspec.json.decode(payload, type=_Identified).id
            except msgspec.DecodeError:
                event = ""
            if event not in self._events:
                self._find(f"{EVENTS}, line {number}: is an event of which no leaf knows")
            elif hashlib.sha256(payload).hexdigest() != self._events.pop(event):
                self._find(f"{EVENTS}, line {number}: was changed")
            self.report.events += 1
        if self._events:
            self.report.remarks.append(f"{len(self._events)} events are not included, only their leaves")
        return payloads

    def _check_readable(self, payloads: list[bytes]) -> None:
        try:
            expected = readable_files(self._proof.alert, self._sidecar, payloads, self._proof.head.key)
        except (EvidenceError, ValueError) as error:  # what it is derived from was changed, which is said above
            self.report.remarks.append(f"files for people were not compared ({error})")
            return
        for name, content in expected.items():
            if self._left.pop(name, None) != content:
                self._find(f"{name}: was changed or removed: it does not follow from the sidecar and the events")


class _Identified(msgspec.Struct):
    id: str


def _zipped(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as package:
        if sum(each.file_size for each in package.infolist()) > MAX_BYTES:
            raise EvidenceError(f"{path}: holds more than {MAX_BYTES} bytes")
        return {each.filename: package.read(each) for each in package.infolist() if not each.is_dir()}


def _in_folder(path: Path) -> dict[str, bytes]:
    files = (each for each in path.rglob("*") if each.is_file())
    return {each.relative_to(path).as_posix(): each.read_bytes() for each in files}
