"""Checkpoints are chosen by file or by the name of a shipped one, and each of those finds a drone."""

import json
from pathlib import Path

import pytest
from support.program import CLIPS, dasnet_in_process

from pipeline.checkpoints import SHIPPED, WEIGHTS, checkpoint_path
from pipeline.errors import ConfigError


def test_a_checkpoint_is_a_file_or_the_name_of_a_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert checkpoint_path(None) == SHIPPED
    small = WEIGHTS / "dasnet-s.safetensors"
    assert checkpoint_path(Path("dasnet-s")) == checkpoint_path(tmp_path / "dasnet-s") == small
    (tmp_path / "dasnet").mkdir()
    assert checkpoint_path(Path("dasnet")) == SHIPPED
    (tmp_path / "dasnet-s").write_bytes(b"")
    assert checkpoint_path(Path("dasnet-s")) == Path("dasnet-s"), "the user's own file"
    with pytest.raises(ConfigError, match=r"dasnet-x: no such file; expected .* file, or dasnet or dasnet-s$"):
        checkpoint_path(Path("dasnet-x"))


def test_the_small_network_tracks_the_drone_of_a_clip(tmp_path: Path) -> None:
    dasnet_in_process(
        "replay", CLIPS / "IR_DRONE_015.mp4", "--checkpoint", "dasnet-s", "--end", "60", "--out", tmp_path
    )
    lines = (tmp_path / "IR_DRONE_015" / "events.jsonl").read_text().splitlines()
    opened = [event for event in map(json.loads, lines) if event["kind"] == "alert.opened"]
    assert len(opened) == 1 and opened[0]["track"]["label"] == "uav" and opened[0]["frame"] < 15
