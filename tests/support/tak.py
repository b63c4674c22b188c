"""A real TAK server (taky), killed and started at will, and clients that hear what it tells."""

import importlib.util
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self
from xml.etree import ElementTree

import pytest

from support.certificates import Certificate
from support.events import until
from support.program import die_with_parent, free_port
from support.server import Server

needs_taky = pytest.mark.skipif(
    importlib.util.find_spec("taky") is None or importlib.util.find_spec("pytak") is None,
    reason="needs taky and dasnet[cot]",
)

# taky asks the retired pkg_resources for its own version, and nothing else.
_MAIN = """
import sys, types
retired = types.ModuleType("pkg_resources")
retired.get_distribution, retired.DistributionNotFound = (lambda name: types.SimpleNamespace(version="0")), LookupError
sys.modules["pkg_resources"] = retired
from taky.cot.__main__ import main
main()
"""
_SELF = """<event version="2.0" type="a-f-G-U-C" uid="{name}" how="h-e" time="{now}" start="{now}" stale="{stale}">
<point lat="0" lon="0" hae="0" ce="1" le="1"/><detail><takv platform="test" version="1" device="d" os="o"/>
<contact callsign="{name}" endpoint="*:-1:stcp"/><uid Droid="{name}"/><__group name="Cyan" role="Team Member"/>
<status battery="100"/><track course="0" speed="0"/></detail></event>"""


def parsed(xml: bytes) -> list[ElementTree.Element]:
    """The whole events of a stream that may end amid one, or that began anew."""
    parser: Any = ElementTree.XMLPullParser(["end"])
    parser.feed(b"<root>")
    for part in xml.split(b"<?xml"):
        declaration, end, rest = part.partition(b"?>")
        parser.feed(rest if end and b"<" not in declaration else part)
    return [element for _, element in parser.read_events() if element.tag == "event"]


class Taky(Server):
    """`with Taky(folder) as server:`; with a certificate it speaks TLS, and with `clients` asks for those."""

    def __init__(self, folder: Path, tls: Certificate | None = None, clients: Certificate | None = None) -> None:
        self.port = free_port()
        self._log = folder / "cot"
        self._log.mkdir()
        lines = ["[taky]", "hostname = test", "bind_ip = 127.0.0.1", f"root_dir = {folder}"]
        lines += ["[cot_server]", f"port = {self.port}", f"log_cot = {self._log}"]
        if tls is not None:
            ca = clients or tls
            lines += [f"mon_port = {free_port()}", "mon_ip = 127.0.0.1", "[ssl]", "enabled = true"]
            lines += [f"client_cert_required = {clients is not None}", f"ca = {ca.certificate}", f"ca_key = {ca.key}"]
            lines += [f"cert = {tls.certificate}", f"key = {tls.key}", "key_pw ="]
        self._file = folder / "taky.conf"
        self._file.write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-c", _MAIN, "-c", str(self._file), "-l", "error"]
        self._process = subprocess.Popen(command, preexec_fn=die_with_parent)
        until(self.listens, 60)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def hang(self) -> None:
        """Do nothing, with all connections open, until told to go on, or killed."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def received(self) -> list[ElementTree.Element]:
        """All that it ever read, also before it was killed."""
        return [each for path in sorted(self._log.glob("*.cot")) for each in parsed(path.read_bytes())]


class TakClient:
    """Tells the server who it is, and hears all others."""

    def __init__(self, server: Taky, tls: ssl.SSLContext | None = None) -> None:
        self._raw = b""
        plain = socket.create_connection(("127.0.0.1", server.port), 5)
        self._socket = plain if tls is None else tls.wrap_socket(plain, server_hostname="127.0.0.1")
        now = datetime.now(UTC)
        name, stamp = f"client-{time.monotonic_ns()}", "%Y-%m-%dT%H:%M:%S.%fZ"
        times = {"now": now.strftime(stamp), "stale": (now + timedelta(minutes=5)).strftime(stamp)}
        self._socket.settimeout(None)
        self._socket.sendall(_SELF.format(name=name, **times).encode())
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def heard(self, kind: str) -> list[ElementTree.Element]:
        return [each for each in parsed(self._raw) if each.get("type") == kind]

    def _read(self) -> None:
        try:
            while content := self._socket.recv(65536):
                self._raw += content
        except OSError:
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._socket.close()
