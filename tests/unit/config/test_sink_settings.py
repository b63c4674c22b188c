"""The entries of `sinks`: what is wrong is named by key and value, and no secret is shown."""

from pathlib import Path
from typing import get_args

import pytest

from model.metadata import CLASSES, CLUTTER
from pipeline.config.file import load
from pipeline.config.sink import Label
from pipeline.config.sinks import JsonlSinkConfig, MqttSinkConfig, NotifySinkConfig, WebhookSinkConfig
from pipeline.config.tactical import CotSinkConfig, SapientSinkConfig
from pipeline.errors import ConfigError
from pipeline.types import UNKNOWN, EventKind, Severity

CANARY = "Canary7Canary7Canary7"
SINKS = """
  - {type: webhook, url: "https://hooks.example.org/in/${TOKEN}", secret: "${file:secret}", batch_size: 50, ca: ca.pem}
  - {type: mqtt, url: "mqtts://dasnet:${TOKEN}@mqtt.example.org", version: 5}
  - {type: notify, name: phone, url: "${TOKEN_URL}", kinds: [track.confirmed], labels: [uav], cameras: [a]}
  - {type: jsonl, min_severity: alarm}
"""


def write(folder: Path, sinks: str) -> Path:
    path = folder / "site.yaml"
    path.write_text(f"cameras: [{{id: a, uri: 'demo:scene'}}, {{id: b, uri: 'demo:scene'}}]\nsinks: {sinks}\n")
    return path


@pytest.fixture(autouse=True)
def _secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text(f"{CANARY}-key\n")
    monkeypatch.setenv("TOKEN", CANARY)
    monkeypatch.setenv("TOKEN_URL", f"discord://4815162342/{CANARY}")


def test_entries_are_read_with_their_filters_and_secrets(tmp_path: Path) -> None:
    config = load(write(tmp_path, SINKS))
    webhook, mqtt, notify, jsonl = config.sinks
    assert isinstance(webhook, WebhookSinkConfig) and isinstance(mqtt, MqttSinkConfig)
    assert isinstance(notify, NotifySinkConfig) and isinstance(jsonl, JsonlSinkConfig)
    assert (webhook.secret, webhook.ca, webhook.host) == (f"{CANARY}-key", tmp_path / "ca.pem", "hooks.example.org")
    assert (mqtt.port, mqtt.version, mqtt.topic, mqtt.discovery) == (8883, "5", "dasnet", "homeassistant")
    assert (notify.kinds, notify.labels, notify.cameras) == ([EventKind.TRACK_CONFIRMED], ["uav"], ["a"])
    assert (notify.min_severity, jsonl.min_severity) == (Severity.WARNING, Severity.ALARM)
    assert {CANARY, f"{CANARY}-key", "4815162342", notify.url, webhook.url} <= config.secrets
    assert "hooks.example.org" not in config.secrets


def test_addresses_of_situation_pictures(tmp_path: Path) -> None:
    sinks = "[{type: cot, url: 'tls://[::1]:8089', tls: {ca: ca.pem}}, {type: sapient, url: 'tcp://10.0.0.1:5020'}]"
    cot, sapient = load(write(tmp_path, sinks)).sinks
    assert isinstance(cot, CotSinkConfig) and isinstance(sapient, SapientSinkConfig)
    assert (cot.scheme, cot.server, cot.port, cot.host) == ("tls", "::1", 8089, "[::1]:8089")
    assert cot.certificates.ca == tmp_path / "ca.pem" and cot.line_m == 1000
    assert (sapient.scheme, sapient.server, sapient.port) == ("tcp", "10.0.0.1", 5020)


def test_labels_are_those_that_tracks_can_have() -> None:
    assert set(get_args(Label)) == {UNKNOWN, *CLASSES, CLUTTER}


FAULTS = {
    "[{url: 'http://h'}]": r"sinks\[0\].type: is required",
    "[{type: webhook}]": r"sinks\[0\].url: is required",
    "[{type: webhook, url: 'ftp://h/x'}]": r"sinks\[0\].url: must be http://HOST.*\(given: 'ftp://\*\*\*'\)",
    f"[{{type: webhook, url: 'http://u:{CANARY}/x@h/x'}}]": "must be percent-encoded",
    f"[{{type: webhook, url: 'http://h', secret: {CANARY[:15]}}}]": r"secret: must have at least 16 characters$",
    "[{type: webhook, url: 'http://h', batch_size: 0}]": r"batch_size: must be.*equal to 1 \(given: '0'\)",
    "[{type: webhook, url: 'http://h', timeout_s: .inf}]": "timeout_s: must be a finite number",
    "[{type: webhook, url: 'http://h', topic: x}]": r"sinks\[0\].topic: unknown key; must be one of name, .*, url",
    "[{type: webhook, url: 'http://h', kinds: [track.seen]}]": r"kinds\[0\]: .*'track.confirmed'.*given: 'track.seen'",
    "[{type: webhook, url: 'http://h', kinds: []}]": "kinds: .*at least 1 item",
    "[{type: webhook, url: 'http://h', min_severity: high}]": r"min_severity: .*'alarm', 'warning' or 'info' \(gi",
    "[{type: webhook, url: 'http://h', labels: [drone]}]": r"labels\[0\]: must be 'uav', 'unknown', .*given: 'drone'",
    "[{type: webhook, url: 'http://h', cameras: [a, c]}]": r"cameras\[1\]: no camera 'c'; must be one of a, b",
    "[{type: webhook, url: 'http://h', cameras: [a, a]}]": "cameras: 'a' stands twice; must be different names",
    "[{type: webhook, url: 'http://h', name: 'a b'}]": r"name: .*pattern.*\(given: 'a b'\)",
    "[{type: webhook, url: 'http://h'}, {type: webhook, url: 'http://h'}]": (
        r"sinks\[1\].name: 'webhook' is also the name of sinks\[0\]; must be unique"
    ),
    "[{type: jsonl}, {type: mqtt, url: 'mqtt://h', name: jsonl}]": r"name: 'jsonl' is also the name of sinks\[0\]",
    "[{type: mqtt, url: h}]": r"url: must be mqtt://HOST:PORT or mqtts://HOST:PORT",
    "[{type: mqtt, url: 'http://h'}]": r"url: must be mqtt://HOST:PORT or mqtts://HOST:PORT",
    "[{type: mqtt, url: 'mqtt://h/path'}]": r"url: must be mqtt://HOST:PORT or mqtts://HOST:PORT",
    "[{type: mqtt, url: 'mqtt://h', tls: {}}]": r"tls: must be set with an mqtts:// url only",
    "[{type: mqtt, url: 'mqtt://h', version: 4}]": r"version: must be '3.1.1' or '5' \(given: '4'\)",
    "[{type: mqtt, url: 'mqtt://h', topic: 'a/#'}]": r"topic: must be at most 100 characters without .*given: 'a/#'",
    "[{type: mqtt, url: 'mqtt://h', topic: 'a/'}]": "topic: must be",
    "[{type: mqtt, url: 'mqtt://h', discovery: '/x'}]": "discovery: must be",
    "[{type: mqtt, url: 'mqtts://h', tls: {certificate: c.pem}}]": r"tls.key: must be set together with certificate",
    "[{type: mqtt, url: 'mqtts://h', tls: {cert: c.pem}}]": r"tls.cert: unknown key; must be one of ca, cert",
    "[{type: cot, url: 'tcp://h'}]": r"url: must be tcp://HOST:PORT, tls://HOST:PORT or .*\(given: 'tcp://\*\*\*'\)",
    "[{type: cot, url: 'udp://239.2.3.1:0'}]": "url: must be tcp://HOST:PORT",
    "[{type: cot, url: 'tcp://h:8087/x'}]": "url: must be .* without user and path",
    f"[{{type: cot, url: 'tcp://u:{CANARY}@h:8087'}}]": "url: must be .* without user and path",
    "[{type: cot, url: 'tcp://h:8087', tls: {}}]": r"tls: must be set with a tls:// url only",
    "[{type: cot, url: 'tls://h:8089', tls: {key: k.pem}}]": r"tls.key: must be set together with certificate",
    "[{type: cot, url: 'tcp://h:8087', line_m: 1}]": r"line_m: must be .*equal to 10 \(given: '1'\)",
    "[{type: sapient, url: 'tls://h:5020'}]": r"url: must be tcp://HOST:PORT, without user and path \(given: 'tls:",
    "[{type: sapient, url: 'h:5020'}]": "url: must be tcp://HOST:PORT",
    "[{type: sapient, url: 'tcp://h:5020', node_id: x}]": r"node_id: unknown key; must be one of name, .*url",
    f"[{{type: notify, url: 'tgram:{CANARY}'}}]": r"url: must be an address of Apprise.*\(given: '\*\*\*'\)",
    f"[{{type: notify, url: 'tgram://{CANARY} {CANARY}'}}]": r"url: .*\(given: 'tgram://\*\*\*'\)",
    "[{type: notify, url: '${TOKEN}'}]": r"url: .*\(given: '\$\{TOKEN\}'\)",
}


@pytest.mark.parametrize("sinks", FAULTS, ids=range(len(FAULTS)))
def test_every_fault_is_explained_without_its_secret(tmp_path: Path, sinks: str) -> None:
    with pytest.raises(ConfigError, match=FAULTS[sinks]) as caught:
        load(write(tmp_path, sinks))
    assert "site.yaml:2: " in str(caught.value) and CANARY[:12] not in str(caught.value)
