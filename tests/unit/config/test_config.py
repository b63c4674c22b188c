"""A good configuration means what it says; every bad one is explained by file, key, value and what is allowed."""

from pathlib import Path

import pytest
import yaml
from support.program import REPOSITORY, dasnet

from pipeline.config.file import load
from pipeline.config.uri import public_uri
from pipeline.errors import ConfigError
from pipeline.types import Band

SMALLEST = 'cameras:\n  - {id: north, uri: "rtsp://user:${CAM_PASSWORD}@192.0.2.10/stream", band: infrared}\n'


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "site.yaml"
    path.write_text(text)
    return path


def test_the_smallest_site_has_defaults_for_everything_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CAM_PASSWORD", "p@ss/word")
    config = load(write(tmp_path, SMALLEST))
    camera = config.cameras[0]
    assert (camera.id, camera.band, camera.transport) == ("north", Band.INFRARED, "tcp")
    assert camera.uri == "rtsp://user:p@ss/word@192.0.2.10/stream"
    assert camera.public_uri == "rtsp://192.0.2.10/stream"
    assert config.metrics.host == config.console.host == "127.0.0.1"


def test_secret_files_and_relative_paths(tmp_path: Path):
    (tmp_path / "secret").write_text("hidden\n")
    text = """
cameras:
  - {id: a, uri: "rtsp://u:${file:secret}@h/s"}
  - {id: b, uri: "file:clips/x.mp4"}
model: {checkpoint: best.pth}
"""
    config = load(write(tmp_path, text))
    assert config.cameras[0].uri == "rtsp://u:hidden@h/s"
    assert config.cameras[1].uri == f"file:{tmp_path}/clips/x.mp4"
    assert config.model.checkpoint == tmp_path / "best.pth"


@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_configuration_is_valid(path: Path):
    assert load(path).cameras


CAMERA = '{id: a, uri: "demo:scene"}'
FAULTS = {
    "cameras: []": r"cameras: .*at least 1",
    "camera: 3": "cameras: is required",
    f"cameras: [{CAMERA}]\nmodle: {{}}": r"modle: unknown key; allowed: cameras, model, objective",
    "cameras: [{id: a, uri: 'demo:scene', bnd: x}]": r"cameras\[0\].bnd: unknown key; allowed: id, uri, band",
    "cameras: [{id: a, uri: 'demo:scene', band: radar}]": r"band: .*'visible' or 'infrared' \(given: 'radar'\)",
    "cameras: [{id: 'a b', uri: 'demo:scene'}]": r"cameras\[0\].id: .*pattern.*\(given: 'a b'\)",
    "cameras: [{id: a, uri: 'ftp://h'}]": r"cameras\[0\].uri: unknown scheme 'ftp'; allowed: rtsp:",
    "cameras: [{id: a, uri: 'rtsp:///x'}]": "a camera's address needs a host",
    f"cameras: [{CAMERA}, {CAMERA}]": "id 'a' is used twice",
    f"cameras: [{CAMERA}]\nmodel: {{threshold: 2}}": r"model.threshold: .*less than or equal to 1 \(given: '2'\)",
    f"cameras: [{CAMERA}]\nconsole: {{host: 0.0.0.0}}": r"password_file: is required.*0.0.0.0.*`dasnet password FILE`",
    f"cameras: [{CAMERA}]\nsinks: [{{type: kafka}}]": r"sinks\[0\].type: .*'jsonl' \(given: 'kafka'\)",
    "cameras: [{id: a, uri: 'rtsp://u:${NOT_SET_ANYWHERE}@h'}]": "variable NOT_SET_ANYWHERE is not set",
    "cameras: [{id: a, uri: 'rtsp://u:${file:none}@h'}]": r"secret file .*none cannot be read",
    "cameras: [": "is not valid YAML",
    "- 1": "holds no configuration",
}


@pytest.mark.parametrize("text", FAULTS, ids=range(len(FAULTS)))
def test_every_fault_is_explained(tmp_path: Path, text: str):
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=FAULTS[text]) as caught:
        load(path)
    assert str(caught.value).startswith(str(path))


def test_an_expanded_secret_is_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CAM_PASSWORD", "canary-7")
    for text in (SMALLEST.replace("rtsp:", "rtps:"), SMALLEST.replace("infrared", "${CAM_PASSWORD}")):
        with pytest.raises(ConfigError) as caught:
            load(write(tmp_path, text))
        assert "canary-7" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "public"),
    [
        ("rtsp://u:p@h:1/s", "rtsp://h:1/s"),
        ("rtsp://u:p/q@h/s", "rtsp://h/s"),
        ("rtsp://h/s", "rtsp://h/s"),
        ("demo:scene", "demo:scene"),
    ],
)
def test_public_addresses_hold_no_credentials(uri: str, public: str):
    assert public_uri(uri) == public


def test_check_says_what_a_configuration_means_and_bad_ones_exit_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CAM_PASSWORD", "canary-7")
    good = dasnet("check", write(tmp_path, SMALLEST))
    assert good.returncode == 0 and "camera north: infrared, rtsp://192.0.2.10/stream, over tcp" in good.stdout
    assert "canary-7" not in good.stdout + good.stderr
    for command in ("check", "run"):
        bad = dasnet(command, write(tmp_path, yaml.safe_dump({"cameras": []})))
        assert (bad.returncode, "Traceback" in bad.stderr) == (2, False)
        missing = dasnet(command, tmp_path / "none.yaml")
        assert missing.returncode == 2 and "none.yaml: cannot be read" in missing.stderr
