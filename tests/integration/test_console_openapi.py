"""The API keeps what its OpenAPI description says, whatever is asked."""

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from support.events import gone, raised, track
from support.served_console import serving

from pipeline.config.models import Config
from pipeline.console.app import ENDPOINTS
from pipeline.console.endpoint import Endpoint
from pipeline.console.openapi import openapi
from pipeline.store.store import Store

ROOT = Path(__file__).parents[2]
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
]
GENERATOR = ("openapi-python-client==0.29.1", "python-dateutil>=2.8", "six>=1.16")  # asks for an older typer: alone
UNHEALTHY = list(HealthCheck)
ENDLESS = ("/live", "/events/stream")
DESCRIPTION = openapi(ENDPOINTS)
ASKED = [each for each in ENDPOINTS if each.path not in (*ENDLESS, "/trials")]


@contextmanager
def served() -> Iterator[str]:
    """The URL of a console with three alerts."""
    with tempfile.TemporaryDirectory(prefix="openapi") as folder:
        site = {"cameras": [{"id": "north", "uri": "demo:scene"}], "run_dir": Path(folder) / "run"}
        config = Config.model_validate(site)
        with Store(config.store_path) as store:
            for number in range(3):
                events = raised(subject := track(number))
                store.append([*events, *gone(subject, events[0].id)])
            with serving(config) as url:
                yield url


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served() as url:
        yield url


def ask(url: str, endpoint: Endpoint, examples: int) -> None:
    """Send requests that fit the description and such that do not, and check what is answered."""
    schema = schemathesis.openapi.from_dict(json.loads(DESCRIPTION))
    operation = schema[f"/api/v1{endpoint.path}"][endpoint.method]

    modes = [GenerationMode.POSITIVE, *([GenerationMode.NEGATIVE] if endpoint.query or endpoint.body else [])]
    for mode in modes:

        @settings(
            max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=UNHEALTHY
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case: schemathesis.Case) -> None:
            answer = case.call(base_url=url)
            too_large = [negative_data_rejection] if answer.status_code == 413 else []  # it does not know this answer
            case.validate_response(answer, checks=CHECKS, excluded_checks=too_large)

        check()


@pytest.mark.parametrize("endpoint", ASKED, ids=lambda endpoint: endpoint.handler)
def test_answers_are_as_described(url: str, endpoint: Endpoint) -> None:
    ask(url, endpoint, 4)


@pytest.mark.slow
@pytest.mark.parametrize("endpoint", ASKED, ids=lambda endpoint: endpoint.handler)
def test_answers_are_as_described_whatever_is_asked(url: str, endpoint: Endpoint) -> None:
    ask(url, endpoint, 200)


def test_the_description_is_served_committed_and_whole(url: str) -> None:
    served = httpx.get(f"{url}/api/v1/openapi.json")
    assert served.headers["content-type"] == "application/json"
    assert served.text == (ROOT / "docs" / "openapi.json").read_text().rstrip("\n"), (
        "run `python scripts/make_docs.py docs`"
    )
    described = served.json()
    assert described["openapi"] == "3.1.0"
    operations = {(path, method) for path, methods in described["paths"].items() for method in methods}
    assert operations == {(f"/api/v1{each.path}", each.method.lower()) for each in ENDPOINTS}
    names = [each["operationId"] for methods in described["paths"].values() for each in methods.values()]
    assert len(set(names)) == len(names)
    referred = set(json.dumps(described).split('"#/components/schemas/')[1:])
    assert {each.partition('"')[0] for each in referred} <= described["components"]["schemas"].keys()


def generated_client(folder: Path) -> str:
    """The name of a package, in the folder, that was generated from the description; skips without its generator."""
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder / "generator")]
    installed = subprocess.run([*pip, *GENERATOR], capture_output=True, text=True, timeout=120)
    if installed.returncode:
        pytest.skip(f"{GENERATOR[0]} cannot be installed here: {installed.stderr.strip()[-200:]}")
    paths = os.pathsep.join([str(folder / "generator"), str(Path(sys.executable).parent)])
    generate = [sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none", "--path"]
    subprocess.run(
        [*generate, ROOT / "docs" / "openapi.json", "--output-path", folder / "dasnet_client"],
        env=os.environ | {"PYTHONPATH": str(folder / "generator"), "PATH": f"{paths}{os.pathsep}{os.environ['PATH']}"},
        check=True,
        timeout=120,
    )
    return "dasnet_client"


@pytest.mark.slow
def test_a_generated_client_lists_alerts_acknowledges_one_and_reads_cameras(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = generated_client(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def calls(name: str) -> Any:
        return importlib.import_module(f"{package}.api.default.{name}")

    waiting = importlib.import_module(f"{package}.models").AlertsUnacknowledged.TRUE
    with served() as url, importlib.import_module(package).Client(base_url=url) as client:
        listed = calls("alerts").sync(client=client, unacknowledged=waiting)
        assert [alert.camera for alert in listed.alerts] == ["north"] * 3 and len(listed.alerts[0].xyxy) == 4
        known = calls("acknowledge").sync(listed.alerts[1].id, client=client)
        assert known.id == listed.alerts[1].id and known.acknowledged_utc_ns is not None
        left = calls("alerts").sync(client=client, unacknowledged=waiting).alerts
        assert {alert.id for alert in left} == {listed.alerts[0].id, listed.alerts[2].id}
        (camera,) = calls("cameras").sync(client=client).cameras
        assert (camera.id, camera.band, camera.state) == ("north", "visible", "starting")
        missing = calls("alert").sync_detailed("no-such-alert", client=client)
        assert missing.status_code == 404 and "no-such-alert" in missing.parsed.error
