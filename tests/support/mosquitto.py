"""A real MQTT broker, killed and started at will, and a client that hears everything."""

import shutil
import subprocess
import threading
from pathlib import Path
from typing import NamedTuple, Self

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from support.certificates import Certificate
from support.events import until
from support.program import die_with_parent, free_port
from support.server import Server

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")

needs_mosquitto = pytest.mark.skipif(
    MOSQUITTO is None, reason="needs Debian's mosquitto: sh scripts/system_packages.sh"
)


class Broker(Server):
    """`with Broker(folder) as broker:`; `user` with `password` is asked for where given."""

    def __init__(self, folder: Path, user: str = "", password: str = "", tls: Certificate | None = None) -> None:
        self.port = free_port()
        lines = ["user root", f"listener {self.port} 127.0.0.1", "log_type none"]
        if user:
            subprocess.run(["mosquitto_passwd", "-b", "-c", folder / "users", user, password], check=True)
            (folder / "users").chmod(0o600)
            lines += [f"password_file {folder / 'users'}"]
        else:
            lines += ["allow_anonymous true"]
        if tls is not None:
            lines += [f"certfile {tls.certificate}", f"keyfile {tls.key}"]
        self._file = folder / "mosquitto.conf"
        self._file.write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert MOSQUITTO is not None
        self._process = subprocess.Popen([MOSQUITTO, "-c", self._file], preexec_fn=die_with_parent)
        until(self.listens, 10)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()


class Message(NamedTuple):
    """What was heard."""

    topic: str
    payload: bytes
    retained: bool


class Listener:
    """Subscribed to everything, again after each connection; with `birth` it acts as Home Assistant does."""

    def __init__(self, broker: Broker) -> None:
        self.messages: list[Message] = []
        self._subscribed = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe("#", 1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = lambda _, __, m: self.messages.append(Message(m.topic, bytes(m.payload), m.retain))
        self._client.connect("127.0.0.1", broker.port)

    def heard(self, topic: str) -> list[str]:
        return [message.payload.decode() for message in list(self.messages) if message.topic == topic]

    def birth(self) -> None:
        self._client.publish("homeassistant/status", "online", 1).wait_for_publish(5)

    def again(self) -> None:
        """Wait until it is subscribed."""
        self._subscribed.clear()
        assert self._subscribed.wait(10)

    def __enter__(self) -> Self:
        self._client.loop_start()
        assert self._subscribed.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()
