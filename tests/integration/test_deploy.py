"""What lies in deploy/, checked as far as it can be without a container engine and without systemd as the init."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.program import REPOSITORY

from pipeline.config.file import load

DEPLOY = REPOSITORY / "deploy"
UNIT = DEPLOY / "systemd" / "dasnet.service"
MOST_EXPOSED = 20  # tenths, of 100; what systemd calls OK begins at 20 and below

needs_systemd = pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="needs systemd-analyze (package systemd)"
)


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that is here, which systemd-analyze wants to see."""
    text = UNIT.read_text()
    for key, command in (("ExecStart", "run"), ("ExecReload", "reload")):
        assert f"{key}=/opt/dasnet/bin/dasnet {command} /etc/dasnet/site.yaml\n" in text
    path = tmp_path / UNIT.name
    path.write_text(text.replace("/opt/dasnet/bin/dasnet", "/bin/true"))
    return path


@needs_systemd
def test_systemd_accepts_the_unit_and_would_not_accept_a_wrong_one(unit: Path):
    def verify() -> str:
        result = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=60)
        return result.stderr + str(result.returncode or "")

    assert verify() == ""
    unit.write_text(unit.read_text().replace("KillMode=mixed", "KillMode=gently"))
    assert "Failed to parse kill mode" in verify()


@needs_systemd
def test_the_service_is_hardened(unit: Path):
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSED}", unit]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout


def test_a_process_that_lacks_memory_ends_neither_the_machine_nor_the_others():
    settings = dict(line.split("=", 1) for line in UNIT.read_text().splitlines() if re.match(r"[A-Z]\w+=", line))
    assert re.fullmatch(r"[5-9]\d%", settings["MemoryMax"]) and settings["OOMPolicy"] == "continue"
    assert int(settings["OOMScoreAdjust"]) < 0


def test_the_site_of_the_container_is_valid(monkeypatch: pytest.MonkeyPatch):
    config = load(DEPLOY / "site.yaml")
    assert config.cameras[0].id == "scene"
    text = (DEPLOY / "site.yaml").read_text()
    assert "# - {id: north" in text, "the example of a real camera"
    monkeypatch.setenv("CAM_PASSWORD", "x")
    assert yaml.safe_load(text.replace("# - {id: north", "- {id: north"))["cameras"][1]["band"] == "infrared"


def compose() -> dict[str, Any]:
    content = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert isinstance(content, dict)
    return content


def test_compose_satisfies_the_specification():
    jsonschema = pytest.importorskip("jsonschema", reason="needs check-jsonschema, in the extra `test`")
    pytest.importorskip("check_jsonschema", reason="needs check-jsonschema, in the extra `test`")
    from check_jsonschema.builtin_schemas import get_builtin_schema

    validator = jsonschema.validators.validator_for(schema := get_builtin_schema("vendor.compose-spec"))(schema)
    assert [error.message for error in validator.iter_errors(compose())] == []
    wrong = compose()
    wrong["services"]["grafana"]["restarts"] = "always"
    assert not validator.is_valid(wrong)


def test_what_compose_names_is_there():
    content = compose()
    stages = re.findall(r"^FROM \S+ AS (\S+)$", (DEPLOY / "Containerfile").read_text(), re.MULTILINE)
    for name, service in content["services"].items():
        assert service["network_mode"] == "host" and "ports" not in service, name
        for mount in service["volumes"]:
            source, target, *_ = mount.split(":")
            assert target.startswith("/")
            if source.startswith("./"):
                assert (DEPLOY / source).exists(), f"{name}: {source}"
            else:
                assert source in content["volumes"], f"{name}: {source}"
        if build := service.get("build"):
            assert (DEPLOY / build["context"] / build["dockerfile"]).samefile(DEPLOY / "Containerfile")
            assert build["target"] in stages
        for profile in service.get("profiles", []):
            assert profile in ("cpu", "gpu")
    gpu = content["services"]["pipeline-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert gpu[0]["driver"] == "nvidia"


def test_grafana_is_provisioned_with_what_compose_mounts():
    services = compose()["services"]
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    assert f"--web.listen-address={source['url'].removeprefix('http://')}" in services["prometheus"]["command"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "dasnet.yaml").read_text())["providers"]
    targets = [mount.split(":")[1] for mount in services["grafana"]["volumes"]]
    assert any(Path(target).parent == Path(provider["options"]["path"]) for target in targets)


def test_the_image_is_made_from_files_that_are_there_and_let_through():
    text = (DEPLOY / "Containerfile").read_text()
    allowed = [line[1:] for line in (REPOSITORY / ".containerignore").read_text().splitlines() if line.startswith("!")]
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE)
        for source in line.split()[:-1]
    }  # fmt: skip
    assert copied == set(allowed) and all((REPOSITORY / source).exists() for source in copied)
    stages: dict[str, str] = dict(re.findall(r"^FROM \S+ AS (\S+)\n(.*?)(?=^FROM|\Z)", text, re.M | re.S))
    run = stages["run"]
    assert re.search(r"^USER (\d+):\d+$", run, re.MULTILINE) and "USER 0" not in text
    for target in ("cpu", "cuda"):
        assert re.search(rf"^FROM run AS {target}$", text, re.MULTILINE)
        assert f"COPY --from=build-{target} /opt/dasnet /opt/dasnet" in stages[target]
        assert not re.search("pip|apt-get|g[+][+]", stages[target] + run), "no compiler and no installer in what runs"
    entry, command = (json.loads(found) for found in re.findall(r"^(?:ENTRYPOINT|CMD) (\[.*\])$", run, re.MULTILINE))
    assert [*entry, *command] == ["dasnet", "run", "/etc/dasnet/site.yaml"]
