"""The program on two hosts: an alert on an edge host's camera has its clip on the inference host."""

import hashlib
from pathlib import Path

import pytest
import yaml
from support.clips import decoded
from support.events import until
from support.program import Running, free_port

from pipeline.store.clips import PARTIAL, read_record, video_path
from pipeline.transport.keys import make_keys


@pytest.mark.slow
@pytest.mark.live
def test_an_alert_on_an_edge_host_s_camera_has_its_clip(tmp_path: Path) -> None:
    make_keys(tmp_path / "keys", ["mast"])
    site = {
        "cameras": [{"id": "far", "uri": "demo:scene?seed=4", "rate_fps": 3, "host": "mast"}],
        "link": {"host": "127.0.0.1", "port": free_port() - 3, "keys": str(tmp_path / "keys")},
        "recording": {"max_s": 8},
        "metrics": {"port": 0},
        "console": {"port": 0},
    }
    configs = {}
    for host in ("here", "edge"):
        configs[host] = tmp_path / f"{host}.yaml"
        configs[host].write_text(yaml.safe_dump(site | {"run_dir": str(tmp_path / host)}))
    clips = tmp_path / "here" / "clips"
    with Running("run", configs["here"]) as here, Running("run", configs["edge"], "--host", "mast") as edge:
        edge.wait_for_metric('dasnet_clips_written_total{camera="far"}', 1, 150)

        def fetched() -> list[Path]:
            return [path for path in clips.glob("*.json") if PARTIAL not in path.name]

        until(lambda: bool(fetched()), 30)
        record = read_record(fetched()[0])
        edge.stop()
        here.stop()
        assert not [line for line in (*here.lines, *edge.lines) if "message rejected" in line or "clip lost" in line]
    content = video_path(clips, record.alert).read_bytes()
    assert record.covers_first_detection and record.sha256 == hashlib.sha256(content).hexdigest()
    assert len(decoded(clips, record.alert)) == record.packets
    assert not video_path(tmp_path / "edge" / "clips", record.alert).exists()
