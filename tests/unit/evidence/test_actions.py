"""What people did is in the evidence log, leaf by leaf, and a change of it is found."""

import sqlite3
from contextlib import closing
from pathlib import Path

from support.events import START_NS
from support.evidence import Run, alert, lines

from pipeline.evidence.leaves import ActionLeaf, decode_leaf
from pipeline.store import reviews
from pipeline.store.actions import ActionKind, Actor, record
from pipeline.types import Verdict

OTTO = Actor("otto", "192.0.2.7")
NOW_NS = START_NS + 10**12


def change(run: Run, statement: str) -> None:
    with closing(sqlite3.connect(run.config.store_path)) as connection:
        connection.execute(statement)
        connection.commit()


def test_actions_are_leaves_and_their_changes_are_found(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    name, path = run.add(alert(1)), run.config.store_path
    run.delivered()
    reviews.review(path, name, Verdict.BIRD, "a gull", NOW_NS, OTTO)
    reviews.review(path, name, Verdict.BIRD, "a gull", NOW_NS, OTTO)  # again: no action
    record(path, OTTO, ActionKind.DISARM, NOW_NS)
    reviews.pin(path, name, NOW_NS)
    run.stop()
    leaves = [decode_leaf(line) for line in lines(run.config.evidence_path / "log.jsonl")]
    done = [
        (leaf.user, leaf.address, leaf.action, leaf.alert, leaf.detail)
        for leaf in leaves
        if isinstance(leaf, ActionLeaf)
    ]
    assert done == [
        (*OTTO, "acknowledge", name, ""),
        (*OTTO, "review", name, "bird: a gull"),
        (*OTTO, "disarm", None, ""),
        ("", "", "pin", name, ""),
    ]
    assert run.verify().findings == []
    change(run, "UPDATE actions SET payload = replace(payload, 'otto', 'eve') WHERE kind = 'review'")
    change(run, "DELETE FROM actions WHERE kind = 'disarm'")
    (first, second) = run.verify().findings
    assert "(review, " in first and "was changed in the store" in first
    assert "(disarm by otto, " in second and "was removed from the store" in second


def test_the_log_goes_on_after_its_last_action(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    name = run.add(alert(1))
    for number in range(3):
        reviews.pin(run.config.store_path, name, NOW_NS + number, OTTO)
    run.stop()
    again = Run(tmp_path / "run")
    reviews.pin(again.config.store_path, name, None, OTTO)
    again.stop()
    leaves = [decode_leaf(line) for line in lines(run.config.evidence_path / "log.jsonl")]
    assert [leaf.action for leaf in leaves if isinstance(leaf, ActionLeaf)] == ["pin"] * 3 + ["unpin"]
    assert again.verify().findings == []
