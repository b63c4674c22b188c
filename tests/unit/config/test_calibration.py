"""Calibration files: read as they were written; damaged ones are refused with file, key and value."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.program import dasnet_in_process

from pipeline.config.calibration import Calibration, read_calibration
from pipeline.config.camera import Camera
from pipeline.errors import ConfigError
from pipeline.types import Band

GOOD: dict[str, Any] = {
    "version": 1,
    "camera": "north",
    "band": "infrared",
    "frame_size_px": [320, 256],
    "checkpoint": "0123456789abcdef" * 4,
    "role": "alert",
    "hours": 15.5,
    "created_utc_ns": 1_700_000_000_000_000_000,
    "limits": {"alert_log_odds": 0.5, "alarms_per_hour": 0.2},
    "noise_map": [[0.0, 1e-06], [0.25, 2.0]],
}
FAULTS = {
    "version: must be 1 (given: '2')": {"version": 2},
    "camera: must": {"camera": "no rth"},
    "band: must be 'visible' or 'infrared' (given: 'thermal')": {"band": "thermal"},
    "frame_size_px[1]: must be greater than or equal to 1 (given: '0')": {"frame_size_px": [320, 0]},
    "checkpoint: ": {"checkpoint": "short"},
    "hours: must be greater than 0 (given: '0')": {"hours": 0},
    "hours: must be a valid number": {"hours": "many"},
    "limits.alarms_per_hour: is required": {"limits": {"alert_log_odds": None}},
    "limits.extra: unknown key; must be one of alert_log_odds, alarms_per_hour": {
        "limits": GOOD["limits"] | {"extra": 1}
    },
    "noise_map: rows have 1 to 2 cells; must have equally many": {"noise_map": [[0.0], [0.0, 1.0]]},
    "noise_map[0][1]: must be greater than or equal to 0 (given: '-1')": {"noise_map": [[0, -1]]},
    "noise_map: ": {"noise_map": []},
    "other: unknown key; must be one of version, camera,": {"other": 1},
}


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_calibration_is_read_as_it_was_written(tmp_path: Path):
    read = read_calibration(write(tmp_path / "good.json", GOOD))
    assert read == Calibration.model_validate(GOOD) and read.noise_map[0][1] == 1e-6


@pytest.mark.parametrize(("fault", "change"), FAULTS.items())
def test_a_damaged_calibration_is_refused_with_file_key_and_value(tmp_path: Path, fault: str, change: dict[str, Any]):
    path = write(tmp_path / "bad.json", GOOD | change)
    with pytest.raises(ConfigError) as error:
        read_calibration(path)
    assert str(error.value).startswith(f"{path}:") and fault in str(error.value)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("", "must be a calibration file, written by `dasnet assess`"),
        (json.dumps(GOOD)[:150], "invalid YAML"),
        (json.dumps(GOOD).replace("15.5", ".nan"), "hours: must be a finite number"),
        (json.dumps(GOOD)[:-1] + ', "hours": 1}', "hours: duplicate key"),
    ],
)
def test_a_file_that_is_cut_off_or_something_else_is_refused(tmp_path: Path, content: str, fault: str):
    path = write(tmp_path / "bad.json", content)
    with pytest.raises(ConfigError) as error:
        read_calibration(path)
    assert str(path) in str(error.value) and fault in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"none\.json: cannot be read"):
        read_calibration(tmp_path / "none.json")


def test_it_applies_to_its_camera_band_and_checkpoint_only():
    calibration = Calibration.model_validate(GOOD)
    camera = Camera(id="north", uri="demo:scene", band=Band.INFRARED)
    assert calibration.camera_fault(camera) is None
    south, visible = (camera.model_copy(update=change) for change in ({"id": "south"}, {"band": Band.VISIBLE}))
    assert calibration.camera_fault(south) == "camera: must be south (given: north)"
    assert calibration.camera_fault(visible) == "band: must be visible (given: infrared)"
    assert calibration.checkpoint_fault(GOOD["checkpoint"]) is None
    fault = calibration.checkpoint_fault("f" * 64)
    assert fault is not None and fault.startswith("checkpoint: must be ffffffffffff..., the one in use")


def test_commands_refuse_a_calibration_that_does_not_fit(tmp_path: Path):
    write(tmp_path / "north.json", GOOD | {"camera": "south"})
    site = tmp_path / "site.yaml"
    site.write_text("cameras: [{id: north, uri: 'demo:scene', band: infrared, calibration: north.json}]\n")
    checked = dasnet_in_process("check", site)
    assert checked.returncode == 2
    assert f"cameras[0].calibration: {tmp_path / 'north.json'}: camera: must be north (given: south)" in checked.stderr
    write(tmp_path / "north.json", GOOD | {"role": "record"})
    checked = dasnet_in_process("check", site)
    assert checked.returncode == 2 and "role: must be alert, the model.role in use (given: record)" in checked.stderr
    replayed = dasnet_in_process(
        "replay", "tests/data/clips", "--out", tmp_path, "--calibration", tmp_path / "north.json"
    )
    assert replayed.returncode == 2 and "checkpoint: must be" in replayed.stderr
