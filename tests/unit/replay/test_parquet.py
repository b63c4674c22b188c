"""`--parquet`: one data set over all inputs that says the same as their files; the documented queries run on it."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.program import CLIPS, REPOSITORY, dasnet_in_process

from pipeline.replay.parquet import has_rows, remove_rows

duckdb = pytest.importorskip("duckdb")
pytest.importorskip("pyarrow")
FRAMES = 40
NAMES = ("IR_BIRD_003", "IR_DRONE_015")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parquet")
    clips = [CLIPS / f"{name}.mp4" for name in NAMES]
    result = dasnet_in_process("replay", *clips, "--out", folder / "out", "--end", FRAMES, "--no-video", "--parquet")
    assert result.returncode == 0, result.stderr
    return folder / "out"


def query(out: Path, text: str) -> list[tuple[Any, ...]]:
    return duckdb.connect().execute(text.replace("out/parquet", str(out / "parquet"))).fetchall()


def table(out: Path, name: str, columns: str, where: str = "true") -> list[tuple[Any, ...]]:
    text = f"SELECT {columns} FROM read_parquet('out/parquet/{name}/**/*.parquet', hive_partitioning = true)"
    return query(out, f"{text} WHERE {where} ORDER BY recording, frame")


def test_the_rows_are_those_of_the_files(out: Path):
    for name in NAMES:
        lines = (out / name / "tracks.txt").read_text().splitlines()
        boxes = [tuple(map(float, line.split(",")[:7])) for line in lines]
        columns = "frame, track, x, y, w, h, score"
        assert sorted(table(out, "tracks", columns, f"recording = '{name}'")) == sorted(boxes)
        events = [json.loads(line) for line in (out / name / "events.jsonl").read_text().splitlines()]
        ids = {(event["id"], event["kind"], event["frame"] + 1) for event in events}
        assert set(table(out, "events", "id, kind, frame", f"recording = '{name}'")) == ids
        frames = [json.loads(line) for line in (out / name / "detections.jsonl").read_text().splitlines()[1:]]
        scores = [(frame["ref"]["seq"] + 1, pytest.approx(score)) for frame in frames for score in frame["score"]]
        assert table(out, "detections", "frame, score", f"recording = '{name}'") == scores
    assert table(out, "tracks", "frame"), "no track: the test shows nothing"


def test_the_documented_queries_run(out: Path):
    queries = re.findall(r"```sql\n(.*?)```", (REPOSITORY / "docs" / "bulk-replay.md").read_text(), re.DOTALL)
    tracks, alerts = (query(out, text) for text in queries)
    assert tracks[0][1] == "IR_DRONE_015"
    assert sum(row[-1] for row in alerts) == len(table(out, "events", "id", "kind = 'alert.opened'"))


def test_a_replay_without_it_removes_rows_that_are_no_longer_true(out: Path, tmp_path: Path):
    copy = tmp_path / "out"
    shutil.copytree(out, copy)
    assert all(has_rows(copy / name) for name in NAMES)
    remove_rows(copy / NAMES[0])
    assert not has_rows(copy / NAMES[0]) and has_rows(copy / NAMES[1])
    assert {row[0] for row in table(copy, "tracks", "recording")} == {NAMES[1]}
