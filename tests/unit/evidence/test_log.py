"""The evidence log: every kind of tampering is named, nothing is lost by a kill, and a failing disk stops nothing."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from support.events import event, until
from support.evidence import Run, alert, lines, site

from pipeline.evidence.heads import Head
from pipeline.evidence.leaves import DeletedFilesLeaf, EventLeaf, FileLeaf, ProgramLeaf, decode_leaf
from pipeline.evidence.log import EvidenceError, EvidenceLog
from pipeline.evidence.signing import load_key, make_key, public_hex, read_public
from pipeline.evidence.verify import verify_run
from pipeline.store.reader import StoreReader
from pipeline.types import EventKind

ROOT = Path(__file__).parents[3]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    run = Run(tmp_path / "run")
    yield run
    run.outbox.stop(0.1)
    run.store.close()


@pytest.fixture
def filled(run: Run) -> Run:
    """A run that ended, with two alerts and a camera that was down."""
    run.add([event(EventKind.CAMERA_DOWN), event(EventKind.CAMERA_UP)])
    for number in (1, 2):
        run.add_clip(run.add(alert(number)))
    run.stop()
    return run


def log_of(run: Run) -> Path:
    return run.config.evidence_path / "log.jsonl"


def heads_of(run: Run) -> Path:
    return run.config.evidence_path / "heads.jsonl"


def test_what_a_run_leaves_is_verified(filled: Run) -> None:
    report = filled.verify()
    assert not report.findings and not report.remarks
    leaves = [decode_leaf(line) for line in lines(log_of(filled))]
    assert [leaf.n for leaf in leaves] == list(range(len(leaves))) and report.leaves == len(leaves)
    assert [leaf.state for leaf in leaves if isinstance(leaf, ProgramLeaf)] == ["started", "stopped"]
    events = [leaf for leaf in leaves if isinstance(leaf, EventLeaf)]
    assert [leaf.event for leaf in events] == ["camera.down", "camera.up", *["alert.opened", "alert.ended"] * 2]
    files = {leaf.file for leaf in leaves if isinstance(leaf, FileLeaf)}
    first = events[2].alert
    assert {
        f"snapshots/{first}.jpg",
        f"snapshots/{first}.crop.jpg",
        f"clips/{first}.mp4",
        f"clips/{first}.json",
    } < files
    assert report.events == 6 and report.files == len(files)
    assert filled.metrics.leaves._value.get() == len(leaves)
    assert filled.metrics.bytes._value.get() == log_of(filled).stat().st_size
    assert filled.metrics.signed._value.get() * 1e9 == pytest.approx(report.signed_utc_ns)


def test_the_key_is_made_once_and_secret(filled: Run) -> None:
    secret = filled.config.evidence_key_path
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    public = read_public(str(secret.with_suffix(".key")))
    assert public == public_hex(load_key(secret).public_key()) == filled.verify().keys[0]
    assert not make_key(secret)
    report = verify_run(filled.config.run_dir, filled.config.store_path, [public])
    assert not report.findings
    report = verify_run(filled.config.run_dir, filled.config.store_path, ["0" * 64])
    assert f"heads.jsonl, line 1: is signed by another key, {public}" in report.findings


# Tampering


def change(path: Path, number: int, make: Callable[[bytes], bytes | None]) -> None:
    """Change a line, or remove it."""
    all_lines = lines(path)
    changed = make(all_lines[number])
    all_lines[number : number + 1] = [changed] if changed is not None else []
    path.write_bytes(b"".join(line + b"\n" for line in all_lines))


def renamed(line: bytes) -> bytes:
    leaf = decode_leaf(line)
    assert isinstance(leaf, EventLeaf)
    return msgspec.json.encode(msgspec.structs.replace(leaf, camera="south"))


def swap_files(run: Run) -> None:
    first, second = sorted(run.config.clips_path.glob("*.mp4"))
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


def number_of_event(run: Run, kind: str) -> int:
    leaves = [decode_leaf(line) for line in lines(log_of(run))]
    return next(leaf.n for leaf in leaves if isinstance(leaf, EventLeaf) and leaf.event == kind)


def test_a_changed_line(filled: Run) -> None:
    number = number_of_event(filled, "alert.opened")
    change(log_of(filled), number, renamed)
    findings = filled.verify().findings
    assert f"log.jsonl, line {number + 1}: was changed: line {number + 2} has another hash of it" in findings
    assert any("do not give the root that was signed" in finding for finding in findings)


def test_a_line_that_is_none(filled: Run) -> None:
    change(log_of(filled), 3, lambda line: line[:-5])
    assert "log.jsonl, line 4: was changed: is no leaf" in filled.verify().findings


def test_a_removed_line(filled: Run) -> None:
    number = number_of_event(filled, "camera.down")
    change(log_of(filled), number, lambda line: None)
    findings = filled.verify().findings
    assert f"log.jsonl, line {number + 1}: leaf {number} was removed before it" in findings
    assert any("was cut off" in finding for finding in findings)


def test_a_line_that_was_repeated(filled: Run) -> None:
    change(log_of(filled), 3, lambda line: line + b"\n" + line)
    assert "log.jsonl, line 5: leaf 3 in the place of leaf 4" in filled.verify().findings


def test_a_log_that_was_cut_off(filled: Run) -> None:
    kept = lines(log_of(filled))[:-3]
    log_of(filled).write_bytes(b"".join(line + b"\n" for line in kept))
    (finding,) = [each for each in filled.verify().findings if "cut off" in each]
    assert finding.startswith(f"log.jsonl: was cut off: has {len(kept)} leaves, and had {len(kept) + 3} on ")


def test_a_log_that_was_cut_off_with_its_heads(filled: Run, tmp_path: Path) -> None:
    """What is left fits; a copy of the heads shows that there was more."""
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(heads_of(filled).read_bytes())
    first, *rest = lines(heads_of(filled))
    size = msgspec.json.decode(first, type=Head).tree_size
    log_of(filled).write_bytes(b"".join(line + b"\n" for line in lines(log_of(filled))[:size]))
    heads_of(filled).write_bytes(first + b"\n")
    assert not [finding for finding in filled.verify().findings if "jsonl" in finding]
    findings = verify_run(filled.config.run_dir, filled.config.store_path, (), copy).findings
    assert len(
        [finding for finding in findings if finding.endswith("was removed") and "the head of" in finding]
    ) == len(rest)
    assert any(finding.startswith(f"log.jsonl: was cut off: has {size} leaves") for finding in findings)


def test_a_log_made_anew_by_somebody_without_the_key(filled: Run) -> None:
    """Every line fits the next one; the signed root does not."""
    drafts = [decode_leaf(line) for line in lines(log_of(filled))]
    log_of(filled).unlink()
    log = EvidenceLog(filled.config.evidence_path)
    for leaf in drafts:
        if not isinstance(leaf, EventLeaf):
            fields = msgspec.structs.asdict(leaf)
            log.append([lambda leaf=leaf, fields=fields, **header: type(leaf)(**(fields | header))])
    log.close()
    assert any("cut off" in each or "root that was signed" in each for each in filled.verify().findings)


def test_a_changed_head(filled: Run) -> None:
    change(heads_of(filled), 0, lambda line: line.replace(b'"tree_size":', b'"tree_size":1'))
    assert "heads.jsonl, line 1: was changed: its signature does not fit" in filled.verify().findings
    heads_of(filled).unlink()
    assert "heads.jsonl: holds no head: the log is not signed" in filled.verify().findings


def test_a_head_signed_by_another_key(filled: Run, tmp_path: Path) -> None:
    make_key(tmp_path / "other.key_secret")
    head = msgspec.json.decode(lines(heads_of(filled))[-1], type=Head)
    forged = msgspec.structs.replace(head, key=public_hex(load_key(tmp_path / "other.key_secret").public_key()))
    change(heads_of(filled), -1, lambda line: msgspec.json.encode(forged))
    assert any("its signature does not fit" in finding for finding in filled.verify().findings)


def test_swapped_changed_and_removed_files(filled: Run) -> None:
    swap_files(filled)
    clips = sorted(f"clips/{path.name}" for path in filled.config.clips_path.glob("*.mp4"))
    assert filled.verify().findings == [f"{name}: was changed" for name in clips]
    swap_files(filled)
    snapshots = sorted(filled.config.snapshots_path.iterdir())
    snapshots[0].unlink()
    snapshots[1].write_bytes(b"shorter")
    assert filled.verify().findings == [
        f"snapshots/{snapshots[1].name}: was changed (7 bytes instead of 500)",
        f"snapshots/{snapshots[0].name}: was removed",
    ]


def test_a_file_that_was_put_there(filled: Run) -> None:
    name = f"snapshots/{'0' * 26}.jpg"
    filled.write_file(name)
    assert filled.verify().remarks == [f"{name}: is not in the log yet"]
    os.utime(filled.config.run_dir / name, ns=(0, 0))
    assert filled.verify().findings == [f"{name}: is not in the log, and older than its newest head"]


def test_changed_and_removed_events(filled: Run) -> None:
    import sqlite3

    with sqlite3.connect(filled.config.store_path) as connection:
        connection.execute("UPDATE events SET payload = replace(payload, 'uav', 'bird') WHERE kind = 'alert.opened'")
        connection.execute("DELETE FROM events WHERE kind = 'camera.down'")
    connection.close()
    findings = filled.verify().findings
    assert len([finding for finding in findings if "(alert.opened, " in finding and "changed" in finding]) == 2
    assert len([finding for finding in findings if "(camera.down, camera north, " in finding]) == 1
    assert len(findings) == 3


# Deletion


def test_files_that_retention_deletes(run: Run) -> None:
    names = [f"snapshots/{run.add(alert(number))}.jpg" for number in range(3)]
    run.delivered()
    until(lambda: log_of(run).read_bytes().count(b'"kind":"file"') >= 6)
    run.sink.deleting(names[:2])
    for name in names[:2]:
        (run.config.run_dir / name).unlink()
    run.stop()
    report = run.verify()
    assert not report.findings and report.remarks == ["2 files were deleted by retention"]
    deleted = [decode_leaf(line) for line in lines(log_of(run)) if b'"kind":"deleted"' in line]
    assert [leaf.files for leaf in deleted if isinstance(leaf, DeletedFilesLeaf)] == [names[:2]]
    (run.config.run_dir / names[2]).unlink()
    assert run.verify().findings == [f"{names[2]}: was removed"]


# Configuration


def test_a_new_configuration_of_the_running_program(run: Run, tmp_path: Path) -> None:
    run.delivered()
    until(lambda: log_of(run).exists() and b"started" in log_of(run).read_bytes())
    run.sink.watch(site(tmp_path / "run", retention={"days": 3}))
    until(lambda: b"reconfigured" in log_of(run).read_bytes())
    run.stop()
    programs = [leaf for leaf in map(decode_leaf, lines(log_of(run))) if isinstance(leaf, ProgramLeaf)]
    assert [leaf.state for leaf in programs] == ["started", "reconfigured", "stopped"]
    assert programs[0].program.configuration_sha256 != programs[1].program.configuration_sha256
    assert len(list((run.config.evidence_path / "configurations").iterdir())) == 2
    assert not run.verify().findings and not run.verify().remarks


# Failure


def test_a_log_that_cannot_be_written_is_caught_up_later(tmp_path: Path) -> None:
    blocked = tmp_path / "run" / "evidence"
    blocked.parent.mkdir()
    blocked.write_text("a file in the place of the folder")
    run = Run(tmp_path / "run")
    run.add(alert(1))
    until(lambda: bool(run.outbox.failures()))
    run.sink.deleting(["snapshots/none.jpg"])
    run.add(alert(2))
    blocked.unlink()
    run.stop()
    report = run.verify()
    assert not report.findings and report.events == 4


def test_a_full_disk_loses_no_leaf(tmp_path: Path) -> None:
    """The size limit of a process stands for the disk's end: a line is written in part."""
    log = EvidenceLog(tmp_path)
    import resource

    from pipeline.evidence.leaves import DeletedEventsLeaf

    draft = [lambda **header: DeletedEventsLeaf(before_utc_ns=1, **header)]
    log.append(draft)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.size_bytes + 10, limits[1]))
    try:
        with pytest.raises(EvidenceError, match=r"log\.jsonl: File too large"):
            log.append(draft)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    log.append(draft)
    assert log.size == 2 and [decode_leaf(line).n for line in lines(tmp_path / "log.jsonl")] == [0, 1]
    root = log.root()
    log.close()
    again = EvidenceLog(tmp_path)
    assert (again.size, again.root()) == (2, root)
    again.close()


def test_a_log_that_is_deleted_while_it_is_written_begins_anew(run: Run) -> None:
    run.add(alert(1))
    run.delivered()
    until(lambda: heads_of(run).exists())
    log_of(run).unlink()
    run.add(alert(2))
    run.stop()
    assert b"alert.opened" in log_of(run).read_bytes()
    assert any("root that was signed" in finding or "cut off" in finding for finding in run.verify().findings)


def test_a_log_has_one_writer(tmp_path: Path) -> None:
    log = EvidenceLog(tmp_path)
    with pytest.raises(EvidenceError, match="is written by another process"):
        EvidenceLog(tmp_path)
    log.close()


WRITER = """
import sys
from pathlib import Path
from support.evidence import Run, alert
run = Run(Path(sys.argv[1]))
for number in range(int(sys.argv[2]), int(sys.argv[2]) + 1000):
    run.add_clip(run.add(alert(number)))
    print(number, flush=True)
"""


def test_kills_at_any_moment_lose_nothing(tmp_path: Path) -> None:
    run_dir, stored = tmp_path / "run", 0
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    for kill in range(5):
        program = [sys.executable, "-c", WRITER, str(run_dir), str(1000 * kill)]
        with subprocess.Popen(program, stdout=subprocess.PIPE, cwd=ROOT, env=environment) as process:
            assert process.stdout is not None
            before = stored
            while stored < before + 3 + 5 * kill:
                line = process.stdout.readline()
                assert line
                stored += line.strip().isdigit()  # others are messages of the log
            process.kill()
    run = Run(run_dir)
    run.stop()
    report = run.verify()
    assert not report.findings and not report.remarks
    events = [leaf for leaf in map(decode_leaf, lines(log_of(run))) if isinstance(leaf, EventLeaf)]
    with StoreReader(run.config.store_path) as reader:
        wanted = [each.event.id for each in reader.events(10_000, after=0) if each.event.is_alert]
    assert [leaf.id for leaf in events] == wanted and len(wanted) == report.events >= 2 * stored, "each once"
    starts = [leaf for leaf in map(decode_leaf, lines(log_of(run))) if isinstance(leaf, ProgramLeaf)]
    assert [leaf.state for leaf in starts].count("started") >= 3 and starts[-1].state == "stopped"
