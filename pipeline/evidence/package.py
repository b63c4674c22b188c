"""The evidence of one alert as a package: a folder or a zip file that proves itself.

In: a run folder and an alert.  Out: its files, its events, the leaves of both with their inclusion proofs, a signed
head, and what people read: `pipeline.evidence.readable`.
"""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from pipeline.errors import DasnetError
from pipeline.evidence.heads import Head, read_heads
from pipeline.evidence.leaves import AnyLeaf, EventLeaf, FileLeaf, LogState, ProgramLeaf, decode_leaf, sidecar_alert
from pipeline.evidence.log import FOLDER, HEADS, LOG, EvidenceError, read_lines
from pipeline.evidence.merkle import Frontier, Tree, leaf_hash
from pipeline.evidence.readable import readable_files
from pipeline.evidence.sidecars import is_of
from pipeline.store.payloads import PayloadReader

BEFORE_NS = 600_000_000_000  # states of the camera are included from then on, so that one sees whether it was blind
EVENTS, PROOF = "events.jsonl", "proof.json"
ZIP = ".zip"
STORED = (".mp4", ".jpg")  # are compressed already


class ProvenLeaf(msgspec.Struct, frozen=True):
    """A line of the log, and its inclusion proof as hexadecimal digits, the lowest node first."""

    line: str
    proof: list[str]


class Proof(msgspec.Struct, frozen=True):
    """What proves a package."""

    version: int
    alert: str
    head: Head
    leaves: list[ProvenLeaf]


def export(run_dir: Path, store: Path, alert: str, out: Path) -> list[str]:
    """Write the package of an alert to a folder that does not exist, or to a `.zip` file.

    Returns:
        What is not in it, as sentences.

    Raises:
        EvidenceError: the log has no such alert, or cannot be read, or its newest leaves are not signed yet.
        StoreError: the store cannot be read.
        DasnetError: the package cannot be written.
    """
    if out.exists():
        raise DasnetError(f"{out}: exists; must be a new folder or .zip file")
    found = _Found(run_dir, alert)
    proof = _proof(run_dir, alert, found)
    with PayloadReader(store) as reader:
        payloads = reader.of_events([leaf.id for leaf in found.leaves if isinstance(leaf, EventLeaf)])
    contents: dict[str, bytes | Path] = {name: run_dir / name for name in found.files}
    contents[EVENTS] = b"".join(payload + b"\n" for payload in payloads.values())
    contents[PROOF] = msgspec.json.format(msgspec.json.encode(proof))
    sidecars = [name for name in found.files if sidecar_alert(name)]
    newest = (run_dir / sidecars[-1]).read_bytes() if sidecars else None
    contents |= readable_files(alert, newest, list(payloads.values()), proof.head.key)
    _write(out, contents)
    return [*found.missing, *([] if sidecars else [f"alert {alert} has no sidecar yet: it has not ended"])]


class _Found:
    """The leaves of an alert, and its files that are there."""

    def __init__(self, run_dir: Path, alert: str) -> None:
        state, camera = LogState(), ""
        every = list[tuple[int, AnyLeaf]]()
        self.lines = list[bytes]()
        for number, line in enumerate(_lines(run_dir)):
            self.lines.append(line)
            try:
                leaf = decode_leaf(line)
            except msgspec.DecodeError:
                continue
            state.take(leaf)
            every.append((number, leaf))
            if isinstance(leaf, EventLeaf) and leaf.alert == alert:
                camera = leaf.camera
        if not camera:
            raise EvidenceError(f"alert {alert}: is not in the evidence log of {run_dir}")
        chosen = list(_chosen(every, alert, camera))
        self.missing = [
            f"{leaf.file}: was deleted by retention" if leaf.file in state.deleted else f"{leaf.file}: is missing"
            for _, leaf in chosen
            if isinstance(leaf, FileLeaf) and not (run_dir / leaf.file).is_file()
        ]
        kept = [each for each in chosen if not isinstance(each[1], FileLeaf) or (run_dir / each[1].file).is_file()]
        self.numbers = [number for number, _ in kept]
        self.leaves = [leaf for _, leaf in kept]
        self.files = [leaf.file for leaf in self.leaves if isinstance(leaf, FileLeaf)]


def _chosen(every: list[tuple[int, AnyLeaf]], alert: str, camera: str) -> Iterator[tuple[int, AnyLeaf]]:
    """Yield the leaves of an alert: of its events and files, of its camera's states, and of the program."""
    of_alert = [leaf for _, leaf in every if isinstance(leaf, EventLeaf) and leaf.alert == alert]
    times_ns = [leaf.event_utc_ns for leaf in of_alert]
    since_ns, until_ns, written_ns = min(times_ns) - BEFORE_NS, max(times_ns), of_alert[0].time_utc_ns
    programs = [each for each in every if isinstance(each[1], ProgramLeaf) and each[1].time_utc_ns <= written_ns]
    configurations = {leaf.program.configuration_sha256 for _, leaf in programs[-1:] if isinstance(leaf, ProgramLeaf)}
    for number, leaf in every:
        match leaf:
            case EventLeaf():
                is_of_camera = leaf.camera == camera and leaf.alert is None
                if leaf.alert == alert or (is_of_camera and since_ns <= leaf.event_utc_ns <= until_ns):
                    yield number, leaf
            case FileLeaf():
                if is_of(alert, leaf.file) or sidecar_alert(leaf.file) == alert or leaf.sha256 in configurations:
                    yield number, leaf
            case _ if (number, leaf) in programs[-1:]:
                yield number, leaf


def _proof(run_dir: Path, alert: str, found: _Found) -> Proof:
    head = _head(run_dir, alert, found)
    hashes = [leaf_hash(line) for line in found.lines[: head.tree_size]]
    tree = Tree(hashes)
    leaves = [
        ProvenLeaf(found.lines[number].decode(), [node.hex() for node in tree.inclusion_proof(number)])
        for number in found.numbers
    ]
    return Proof(1, alert, head, leaves)


def _head(run_dir: Path, alert: str, found: _Found) -> Head:
    """Return the newest head; it must fit the log, and sign all leaves that were found."""
    try:
        heads = [head for head in read_heads(run_dir / FOLDER / HEADS) if head is not None]
    except OSError as error:
        raise EvidenceError(f"{run_dir / FOLDER / HEADS}: cannot be read ({error.strerror})") from error
    head = heads[-1] if heads else None
    if head is None or head.tree_size <= max(found.numbers):
        raise EvidenceError(
            f"alert {alert}: its newest leaves are not signed yet; the running program does it within seconds"
        )
    frontier = Frontier()
    for line in found.lines[: head.tree_size]:
        frontier.append(leaf_hash(line))
    if not head.is_signed or frontier.size < head.tree_size or frontier.root().hex() != head.root_hash:
        raise EvidenceError(f"{run_dir}: its log does not fit its signed head; see `dasnet evidence verify`")
    return head


def _lines(run_dir: Path) -> Iterator[bytes]:
    path = run_dir / FOLDER / LOG
    try:
        yield from read_lines(path)
    except OSError as error:
        raise EvidenceError(f"{path}: cannot be read ({error.strerror})") from error


def _write(out: Path, contents: dict[str, bytes | Path]) -> None:
    partial = out.with_name(f".{out.name}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix == ZIP:
            with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as package:
                for name, content in contents.items():
                    kind = zipfile.ZIP_STORED if name.endswith(STORED) else zipfile.ZIP_DEFLATED
                    if isinstance(content, Path):
                        package.write(content, name, kind)
                    else:
                        package.writestr(name, content, kind)
        else:
            for name, content in contents.items():
                (partial / name).parent.mkdir(parents=True, exist_ok=True)
                data = content.read_bytes() if isinstance(content, Path) else content
                (partial / name).write_bytes(data)
        partial.rename(out)
    except OSError as error:
        raise DasnetError(f"{out}: cannot be written ({error.strerror})") from error
