"""A machine that is too small for its cameras says of which part of the view, in the running program."""

from pathlib import Path

import pytest
import yaml
from support.program import Running

from pipeline.store import ledger
from pipeline.store.reader import StoreReader
from pipeline.types import Cause, EventKind


@pytest.mark.slow
def test_a_camera_whose_view_is_not_processed_in_time_is_partly_blind_by_budget(tmp_path: Path):
    config = tmp_path / "site.yaml"
    content = {
        "cameras": [{"id": "cam", "uri": "demo:scene?fps=6", "band": "infrared"}],
        "model": {"share": 0.05},
        "objective": {"scan_revisit_s": 3},
        "run_dir": str(tmp_path / "run"),
        "metrics": {"port": 0},
        "console": {"port": 0},
    }
    config.write_text(yaml.safe_dump(content))
    with Running("run", config) as program:
        program.wait_for_line("camera.blind.*cause=budget")
        blind = 'dasnet_blind_seconds_total{camera="cam",cause="budget"}'
        program.wait_for_metric(blind, 1)
        assert program.metrics()['dasnet_scan_revisit_seconds{camera="cam"}'] > 3
        assert program.stop() == 0
    with StoreReader(tmp_path / "run" / "store.sqlite") as reader:
        events = sorted((stored.event for stored in reader.events(100)), key=lambda event: event.id)
    states = [(event.kind, event.cause, event.pts_s) for event in events if event.kind.startswith("camera.")]
    assert [state[:2] for state in states[:2]] == [(EventKind.CAMERA_UP, None), (EventKind.CAMERA_BLIND, Cause.BUDGET)]
    assert 3 < states[1][2] < 6, "as soon as the first place is overdue"
    account = ledger.read(tmp_path / "run" / "ledgers" / "cam.ledger")
    assert account.balanced
