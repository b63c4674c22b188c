"""A console in a thread of the test, on all addresses of the loopback network."""

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from pipeline.config.models import Config
from pipeline.console.server import run_console
from pipeline.transport.listener import listen

WAIT_S = 1.0
OPERATOR, ATTACKER = "127.0.0.1", "127.0.0.66"


@contextmanager
def serving(config: Config, wait_s: float = WAIT_S) -> Iterator[str]:
    """The console in a thread; its URL without the last slash."""
    urls: queue.Queue[str] = queue.Queue()
    stop = threading.Event()
    arguments = (config, f"ipc://{config.run_dir}/live.sock", listen(config.console.host, 0, wait_s))
    thread = threading.Thread(target=run_console, args=arguments, kwargs={"ready": urls.put, "stop": stop})
    thread.start()
    try:
        yield urls.get(timeout=20).rstrip("/").replace("0.0.0.0", OPERATOR)
    finally:
        stop.set()
        thread.join(10)
        assert not thread.is_alive()


def client(source: str = OPERATOR, **arguments: Any) -> httpx.Client:
    """A client at an address of the loopback network."""
    return httpx.Client(transport=httpx.HTTPTransport(local_address=source, verify=False), timeout=10, **arguments)


def login(url: str, password: str, source: str = OPERATOR, user: str = "", **headers: str) -> httpx.Response:
    with client(source) as browser:
        return browser.post(f"{url}/api/v1/login", json={"user": user, "password": password}, headers=headers)
