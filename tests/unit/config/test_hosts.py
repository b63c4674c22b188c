"""`hosts` and `nats`: what is refused, and what each host makes of the file."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.program import dasnet_in_process

from pipeline.config.file import load
from pipeline.config.models import Config
from pipeline.errors import ConfigError
from pipeline.transport.keys import make_keys
from pipeline.transport.link import uplink

CAMERAS = [
    {"id": "north", "uri": "demo:scene"},
    {"id": "gate", "uri": "demo:scene", "host": "alpha"},
    {"id": "hill", "uri": "demo:scene", "host": "edge"},
]
HOSTS = {
    "alpha": {"address": "10.0.0.5", "capacity": 8},
    "beta": {"address": "10.0.0.6", "port": 5580, "device": "cuda:1", "metrics_port": 9465, "console_port": 8471},
}
NATS = {"servers": ["nats://dasnet:s3cret%2Fword@10.0.0.9:4222"]}


def site(folder: Path, **changes: object) -> Path:
    make_keys(folder / "keys", ["edge"])
    described = {"cameras": CAMERAS, "hosts": HOSTS, "nats": NATS, "link": {"keys": "keys"}} | changes
    path = folder / "site.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in described.items() if value is not None}))
    return path


def loaded(folder: Path, **changes: object) -> Config:
    return load(site(folder, **changes))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"nats": None}, "nats: is required because hosts is set"),
        ({"hosts": None, "link": {"host": "10.0.0.5", "keys": "keys"}}, "hosts: is required because nats is set"),
        ({"link": {"host": "10.0.0.5", "keys": "keys"}}, "link.host: must not be set in a site with hosts"),
        ({"link": None}, "link: is required because camera 'hill' is on host 'edge'"),
        ({"hosts": {"alpha": {"address": "10.0.0.5", "capacity": 0}}}, "hosts.alpha.capacity: must be greater than 0"),
        ({"hosts": {"alpha": {"capacity": 1}}}, "hosts.alpha.address: is required"),
        ({"hosts": {"a b": {"address": "10.0.0.5"}}}, "hosts.a b"),
        ({"nats": {"servers": []}}, "nats.servers: "),
        ({"nats": {"servers": ["http://10.0.0.9"]}}, r"nats.servers\[0\]: must be nats://HOST:PORT or tls://HOST:PORT"),
        ({"nats": NATS | {"tls": {"ca": "ca.pem"}}}, "nats.tls: must be set with tls:// servers only"),
        ({"nats": NATS | {"name": "a.b"}}, "nats.name: "),
        ({"cameras": [{"id": "clip", "uri": "file:clip.mp4"}]}, "hosts: camera 'clip' is a recording"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path: Path, changes: dict, told: str):
    with pytest.raises(ConfigError, match=told) as fault:
        loaded(tmp_path, **changes)
    assert "s3cret" not in str(fault.value)


def test_each_host_has_its_own_cameras_ports_and_folder(tmp_path: Path):
    config = loaded(tmp_path)
    alpha, beta, edge = (config.for_host(name) for name in ("alpha", "beta", "edge"))
    assert [(camera.id, camera.host) for camera in alpha.cameras] == [("north", None), ("gate", None), ("hill", "edge")]
    assert [camera.id for camera in beta.cameras if camera.host is None] == ["north"], "the gate is alpha's alone"
    assert alpha.pins == beta.pins == {"gate": "alpha"}
    assert [camera.id for camera in edge.cameras] == ["hill"]
    assert alpha.inference_host == "alpha" and edge.inference_host is None
    assert alpha.for_host("alpha") is alpha
    assert beta.link is not None and (beta.link.host, beta.link.port) == ("10.0.0.6", 5580)
    assert alpha.link is not None and (alpha.link.host, alpha.link.port) == ("10.0.0.5", 5570)
    assert (beta.model.device, beta.metrics.port, beta.console.port) == ("cuda:1", 9465, 8471)
    assert (alpha.model.device, alpha.metrics.port, alpha.console.port) == ("auto", 9464, 8470)
    assert not uplink(alpha, alpha.camera("north")).remote
    assert config.link is not None
    moved = edge.model_copy(update={"link": config.link.at(config.hosts["beta"])})
    assert uplink(moved, moved.camera("hill")).frames == "tcp://10.0.0.6:5580"


def test_a_host_must_be_named_and_known(tmp_path: Path):
    config = loaded(tmp_path)
    with pytest.raises(ConfigError, match="--host: is required in a site with hosts; must be one of alpha, beta"):
        config.for_host(None)
    with pytest.raises(ConfigError, match="no camera is on host 'gamma'; must be one of alpha, beta, edge"):
        config.for_host("gamma")
    done = dasnet_in_process("run", site(tmp_path))
    assert done.returncode == 2 and "--host: is required" in done.stderr


def test_logins_of_servers_are_secrets(tmp_path: Path):
    config = loaded(tmp_path)
    assert {"s3cret%2Fword", "s3cret/word"} <= config.secrets
    assert config.nats is not None and config.nats.places == "nats://10.0.0.9:4222"
    assert "s3cret" not in config.redactor(str(config.nats.servers))


def test_a_site_with_one_inference_host_is_as_it_was(tmp_path: Path):
    config = loaded(tmp_path, hosts=None, nats=None, link={"host": "10.0.0.5", "keys": "keys"}, cameras=CAMERAS[:1])
    assert config.for_host(None) is config and config.inference_host is None and not config.pins


def test_one_inference_host_imports_no_nats():
    workers = [f"pipeline.{name}.worker" for name in ("capture", "segmentation", "tracking", "console")]
    program = f"import sys, pipeline.runtime.supervisor, {', '.join(workers)}"
    check = f"{program}; assert not any(name.split('.')[0] == 'nats' for name in sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)
