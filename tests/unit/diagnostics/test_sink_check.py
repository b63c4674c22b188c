"""What is said of sinks by check, status, support bundle and the console: all but their secrets."""

import json
import socket
from pathlib import Path

import pytest
from support import certificates
from support.program import dasnet, free_port

from pipeline.config.file import load
from pipeline.config.models import Config
from pipeline.console.status import public
from pipeline.diagnostics.sink_check import check_sinks, describe_sink, sink_faults
from pipeline.diagnostics.support_bundle import _parts

CANARY = "Canary7Canary7"
LITERAL = f"""
sinks:
  - {{type: webhook, url: "https://me:{CANARY}@hooks.example.org/in/{CANARY}?a={CANARY}", secret: {CANARY}-signing}}
  - {{type: mqtt, url: 'mqtt://dasnet:{CANARY}@mqtt.example.org', cameras: [north]}}
  - {{type: notify, name: phone, url: "discord://4815162342/{CANARY}", labels: [uav], kinds: [track.confirmed]}}
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    path = tmp_path / "site.yaml"
    path.write_text(f"cameras: [{{id: north, uri: 'demo:scene'}}]\nrun_dir: {tmp_path}/run\n{LITERAL}")
    return path


def test_check_says_where_each_goes_and_what_it_is_sent(site: Path) -> None:
    pytest.importorskip("apprise", reason="needs dasnet[notify]")
    ended = dasnet("check", site)
    assert ended.returncode == 0, ended.stderr
    assert "  sink webhook, to hooks.example.org, signed\n" in ended.stdout
    assert "  sink mqtt, to mqtt.example.org:1883, NOT encrypted, topics dasnet/#, cameras north\n" in ended.stdout
    assert (
        "  sink phone, notify, by discord, kinds track.confirmed, from severity warning, labels uav\n" in ended.stdout
    )
    assert "Canary" not in ended.stdout and "4815162342" not in ended.stdout


@pytest.mark.parametrize("how", ["literal", "variable"])
def test_configurations_that_are_shown_hold_no_secret(site: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "variable":
        monkeypatch.setenv("CANARY", CANARY)
        monkeypatch.setenv("SERVICE", f"discord://4815162342/{CANARY}")
        text = site.read_text().replace(f'"discord://4815162342/{CANARY}"', '"${SERVICE}"')
        text = text.replace(f"{CANARY}-signing", '"${CANARY}-signing"').replace(
            f"password: {CANARY}", 'password: "${CANARY}"'
        )
        site.write_text(text.replace(CANARY, "${CANARY}"))
    config = load(site)
    shown = [collect() for name, collect in _parts(site, config) if name.startswith("config")]
    shown.append(json.dumps(public(config.model_dump(mode="json"), config.references)))
    for text in shown:
        assert "Canary" not in text and "4815162342" not in text, text
        assert "mqtt.example.org" in text and "hooks.example.org" in text
    told = config.redactor(f"{config.sinks} then {CANARY}, discord://4815162342/{CANARY} and /in/{CANARY}")
    assert "Canary" not in told and "4815162342" not in told


def test_what_a_sink_lacks_here_is_named(tmp_path: Path) -> None:
    pytest.importorskip("apprise", reason="needs dasnet[notify]")
    good, other = certificates.made(tmp_path), certificates.made(tmp_path, "other")
    (tmp_path / "text.pem").write_text("swordfish")
    tls = {"ca": good.certificate, "certificate": good.certificate, "key": good.key}
    sinks = [
        {"type": "webhook", "url": "https://h/x", "ca": tmp_path / "none.pem"},
        {"type": "mqtt", "url": "mqtts://h", "tls": tls},
        {"type": "mqtt", "name": "b", "url": "mqtts://h", "tls": tls | {"ca": tmp_path / "text.pem", "key": other.key}},
        {"type": "notify", "url": f"nothing://{CANARY}"},
        {"type": "notify", "name": "d", "url": "mailto://127.0.0.1?from=a@example.org&to=duty@example.org"},
    ]
    config = Config.model_validate({"cameras": [{"id": "a", "uri": "demo:scene"}], "sinks": sinks})
    assert list(sink_faults(config)) == [
        f"sinks[0].ca: {tmp_path}/none.pem: must be a PEM file of certificates (No such file or directory)",
        f"sinks[2].tls.ca: {tmp_path}/text.pem: must be a PEM file of certificates (NO_CERTIFICATE_OR_CRL_FOUND)",
        f"sinks[2].tls.certificate: {good.certificate}: cannot be used with tls.key (KEY_VALUES_MISMATCH)",
        "sinks[3].url: must be an address that Apprise knows, complete for its service (given: 'nothing://***')",
    ]


POSE = {"lat": 48.1, "lon": 11.7, "azimuth_deg": 90, "hfov_deg": 40}


def tactical(*sinks: dict[str, object], **pose: object) -> Config:
    cameras = [{"id": "a", "uri": "demo:scene"} | ({"pose": pose} if pose else {}), {"id": "b", "uri": "demo:scene"}]
    return Config.model_validate({"cameras": cameras, "sinks": sinks})


def test_what_situation_pictures_lack_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pytak", reason="needs dasnet[cot]")
    pytest.importorskip("sapient_msg_pydantic", reason="needs dasnet[sapient]")
    sinks: list[dict[str, object]] = [
        {"type": "cot", "url": "tls://tak.example.org:8089", "tls": {"ca": tmp_path / "none.pem"}},
        {"type": "sapient", "url": "tcp://sapient.example.org:5020", "cameras": ["b"]},
    ]
    config = tactical(*sinks, **POSE)
    assert [describe_sink(config, entry) for entry in config.sinks] == [
        "  sink cot, to tls://tak.example.org:8089, NOT of cameras without a pose: b",
        "  sink sapient, to sapient.example.org:5020, NOT encrypted, cameras b, "
        "no detections of cameras without a pose: b",
    ]
    ca = f"sinks[0].tls.ca: {tmp_path}/none.pem: must be a PEM file of certificates (No such file or directory)"
    assert list(sink_faults(config)) == [ca]
    assert list(sink_faults(tactical(*sinks))) == [
        ca, "sinks[0].type: cot needs a camera with a pose; none of a, b has one",
    ]  # fmt: skip
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert list(sink_faults(config)) == [
        'sinks[0].type: cot needs PyTAK; install it with: pip install "dasnet[cot]"',
        'sinks[1].type: sapient needs sapient-pydantic; install it with: pip install "dasnet[sapient]"',
    ]


def test_connecting_says_who_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        there, gone = server.getsockname()[1], free_port()
        sinks: list[dict[str, object]] = [
            {"type": "cot", "url": f"tcp://127.0.0.1:{there}"},
            {"type": "cot", "name": "group", "url": f"udp://127.0.0.1:{there}"},
        ]
        assert check_sinks(tactical(*sinks)) == (
            [
                f"  sink cot: 127.0.0.1:{there} is there",
                f"  sink group: 127.0.0.1:{there} has a route; nobody answers datagrams",
            ],
            True,
        )
        lines, healthy = check_sinks(tactical(*sinks, {"type": "sapient", "url": f"tcp://127.0.0.1:{gone}"}))
        assert not healthy and f"127.0.0.1:{gone} FAILED: 127.0.0.1:{gone}: cannot connect" in lines[2]


def test_check_says_what_web_push_needs_and_how_many_browsers_subscribed(tmp_path: Path) -> None:
    entry = {"type": "push", "contact": "mailto:duty@example.org", "ca": tmp_path / "none.pem"}
    settings = {"cameras": [{"id": "north", "uri": "demo:scene"}], "run_dir": tmp_path / "run", "sinks": [entry]}
    config = Config.model_validate(settings)
    said = "  sink push, to 0 browsers, kinds alert.opened alert.escalated, from severity warning"
    assert describe_sink(config, config.sinks[0]) == said
    public = {"host": "0.0.0.0", "password_file": tmp_path / "password"}
    config = Config.model_validate(settings | {"console": public})
    assert "browsers can subscribe only over TLS: set console.tls" in describe_sink(config, config.sinks[0])
    pytest.importorskip("py_vapid", reason="needs dasnet[push]")
    (fault,) = sink_faults(config)
    assert fault == f"sinks[0].ca: {tmp_path}/none.pem: must be a PEM file of certificates (No such file or directory)"
