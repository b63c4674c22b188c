"""Valid configurations are read as written; each fault is reported by file, key, value and what is expected."""

from pathlib import Path

import pytest
import yaml
from support.program import REPOSITORY, dasnet, dasnet_in_process

from pipeline.config.file import load
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
    assert camera.uri == "rtsp://user:p%40ss%2Fword@192.0.2.10/stream"
    assert camera.public_uri == "rtsp://192.0.2.10/stream"
    assert config.metrics.host == config.console.host == "127.0.0.1"


def test_secret_files_and_relative_paths(tmp_path: Path):
    (tmp_path / "secret").write_text("hidden\n")
    text = """
cameras:
  - {id: a, uri: "rtsp://u:${file:secret}@h/s"}
  - {id: b, uri: "file:clips/x.mp4"}
model: {checkpoint: best.pth}
link: {host: 192.0.2.1, keys: keys}
store: {path: store.sqlite}
log: {file: logs/dasnet.log}
console: {password_file: console.password, tls: {certificate: cert.pem, key: /etc/key.pem}}
sinks: [{type: jsonl, path: events.jsonl}]
"""
    config = load(write(tmp_path, text))
    assert config.cameras[0].uri == "rtsp://u:hidden@h/s"
    assert config.cameras[1].uri == f"file:{tmp_path}/clips/x.mp4"
    assert config.model.checkpoint == tmp_path / "best.pth"
    assert config.link is not None and config.link.keys == tmp_path / "keys"
    assert (config.store_path, config.log_path) == (tmp_path / "store.sqlite", tmp_path / "logs/dasnet.log")
    assert config.console.password_file == tmp_path / "console.password" and config.console.tls is not None
    assert (config.console.tls.certificate, config.console.tls.key) == (tmp_path / "cert.pem", Path("/etc/key.pem"))
    assert config.sink_path(config.sinks[0]) == tmp_path / "events.jsonl"
    assert config.run_dir == Path.cwd() / "run", "relative to the current folder"


@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_configuration_is_valid(path: Path):
    assert load(path).cameras


CAMERA = '{id: a, uri: "demo:scene"}'
FAULTS = {
    "cameras: []": r"cameras: .*at least 1",
    "camera: 3": "cameras: is required",
    f"cameras: [{CAMERA}]\nmodle: {{}}": r"yaml:2: modle: unknown key; must be one of cameras, model",
    "cameras: [{id: a, uri: 'demo:scene', bnd: x}]": r"cameras\[0\].bnd: unknown key; must be one of id, uri, band",
    "cameras: [{id: a, uri: 'demo:scene', band: radar}]": r"band: .*'visible' or 'infrared' \(given: 'radar'\)",
    "cameras: [{id: 'a b', uri: 'demo:scene'}]": r"cameras\[0\].id: .*pattern.*\(given: 'a b'\)",
    "cameras: [{id: a, uri: 'ftp://h'}]": r"cameras\[0\].uri: unknown scheme; must be one of rtsp:.*given: 'ftp://h'",
    "cameras: [{id: a, uri: 'rtsp:///x'}]": "must be rtsp://HOST/PATH, or with USER:PASSWORD@ before the host",
    "cameras: [{id: a, uri: rtsp://u:p@h, swordfish, x@h}]": r"cameras\[0\].a key without a value: unknown key",
    "cameras: [{id: a, uri: 'file://u:p@h/x'}]": "must be a path on this machine without user",
    "cameras: [{id: a, uri: 'v4l2:/dev/video0?password=p'}]": "unknown option after .*must be one of format, size, fps",
    "cameras: [{id: a, uri: 'rtsp://u:${p w}@h'}]": r"must be \$\{NAME\} or",
    f"cameras: [{CAMERA}]\nobjective: {{capture_to_track_ms: 1e999}}": "capture_to_track_ms: .*finite number",
    "cameras: [{id: a, uri: 'demo:scene', scale: 'nan'}]": r"cameras\[0\].scale: .*finite number",
    "cameras: [{id: a, uri: 'demo:scene', ignore: [[[0, 0], [1, inf], [2, 2]]]}]": "finite number",
    f"cameras: [{CAMERA}]\nconsole: {{port: 9464}}": "console.port: 9464 is also the port of metrics.port; must be",
    f"cameras: [{CAMERA}]\nconsole: {{port: 7, host: localhost}}\nmetrics: {{port: 7}}": "is also the port of metrics",
    f"cameras: [{CAMERA}]\nlink: {{host: 0.0.0.0, port: 8469, encrypted: false}}": "8470 is also the port of console",
    f"cameras: [{CAMERA}]\nsinks: [{{type: jsonl}}, {{type: jsonl}}]": r"sinks\[1\].path: .* by sinks\[0\].path",
    f"cameras: [{CAMERA}]\nrun_dir: /r\nsinks: [{{type: jsonl}}, {{type: jsonl, path: /r/./events.jsonl}}]": "jsonl is",
    f"cameras: [{CAMERA}]\nlog: {{file: a/../x}}\nstore: {{path: x}}": "log.file: .*/x is also written by store.path",
    f"cameras: [{CAMERA}, {CAMERA}]": "id 'a' is used twice",
    f"cameras: [{CAMERA}]\nmodel: {{threshold: 2}}": r"model.threshold: .*less than or equal to 1 \(given: '2'\)",
    f"cameras: [{CAMERA}]\nconsole: {{host: 0.0.0.0}}": r"password_file: is required.*0.0.0.0.*`dasnet password FILE`",
    f"cameras: [{CAMERA}]\nretention: {{days: 0}}": r"retention.days: .*greater than 0 \(given: '0'\)",
    f"cameras: [{CAMERA}]\nretention: {{max_gb: .inf}}": r"retention.max_gb: .*finite number",
    f"cameras: [{CAMERA}]\nconsole: {{tls: {{certificate: c, key: k, ca: x}}}}": (
        r"console.tls.ca: unknown key; must be one of certificate, key$"
    ),
    f"cameras: [{CAMERA}]\nmodel: {{checkpoint: ~no-such-user/x}}": r"model.checkpoint: home folder unknown; must be",
    f"cameras: [{CAMERA}]\nmetrics: {{port: many}}": r"metrics.port: must be a valid integer.*\(given: 'many'\)",
    f"cameras: [{CAMERA}]\nretention: {{hours: 1}}": r"hours: unknown key; must be one of days, max_gb, min_free_gb",
    f"cameras: [{CAMERA}]\nsinks: [{{type: kafka}}]": r"yaml:2: sinks\[0\].type: must be one of 'jsonl', .*'kafka'\)",
    "cameras: [{id: a, uri: 'rtsp://u:${NOT_SET_ANYWHERE}@h'}]": "variable NOT_SET_ANYWHERE is not set",
    "cameras: [{id: a, uri: 'rtsp://u:${file:none}@h'}]": r"secret file .*none cannot be read",
    "cameras: [": "invalid YAML",
    "- 1": "must be a mapping with",
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


def test_check_says_what_a_configuration_means_and_bad_ones_exit_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CAM_PASSWORD", "canary-7")
    good = dasnet("check", write(tmp_path, SMALLEST))
    assert good.returncode == 0 and "camera north: infrared, rtsp://192.0.2.10/stream, over tcp" in good.stdout
    assert "canary-7" not in good.stdout + good.stderr
    for command in ("check", "run"):
        bad = dasnet_in_process(command, write(tmp_path, yaml.safe_dump({"cameras": []})))
        assert (bad.returncode, "Traceback" in bad.stderr) == (2, False)
        missing = dasnet_in_process(command, tmp_path / "none.yaml")
        assert missing.returncode == 2 and "none.yaml: cannot be read" in missing.stderr


def test_another_address_keeps_the_documented_port(tmp_path: Path):
    path = tmp_path / "site.yaml"
    path.write_text(
        "cameras: [{id: a, uri: 'demo:scene'}]\nmetrics: {host: 0.0.0.0}\n"
        "console: {host: 0.0.0.0, password_file: console.password}\n"
    )
    config = load(path)
    assert (config.metrics.port, config.console.port) == (9464, 8470)
