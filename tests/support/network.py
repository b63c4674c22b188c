"""Hosts in network namespaces, and the network between them: links that are cut, slow or lossy.

Every host has a TUN device, whose packets this process forwards: the kernel need not know netem.
"""

import fcntl
import heapq
import os
import random
import select
import shutil
import struct
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import pytest

needs_network = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("ip") or not Path("/dev/net/tun").exists(),
    reason="needs root, ip and /dev/net/tun",
)
_SET_INTERFACE, _TUN, _NO_HEADER = 0x400454CA, 0x0001, 0x1000
MTU = 1400


class Network:
    """`with Network({"alpha": "10.78.0.2", ...}) as network:`; addresses exist in these namespaces only.

    Attributes:
        delay_s: of each packet, one way.
        loss: share of packets that are lost.
    """

    def __init__(self, addresses: Mapping[str, str]) -> None:
        self.addresses = dict(addresses)
        self.delay_s, self.loss = 0.0, 0.0
        self._cut: set[str] = set()
        self._devices: dict[str, int] = {}
        self._stop, self._stopped = os.pipe()
        self._thread = threading.Thread(target=self._forward, daemon=True)
        self._random = random.Random(1)

    def command(self, host: str) -> list[str]:
        """How to run a command on a host."""
        return ["ip", "netns", "exec", self._namespace(host)]

    def cut(self, *hosts: str) -> None:
        """Let nothing pass to or from hosts; nobody is told."""
        self._cut |= set(hosts)

    def mend(self, *hosts: str) -> None:
        self._cut -= set(hosts)

    def _namespace(self, host: str) -> str:
        return f"dasnet{os.getpid()}-{host}"

    def __enter__(self) -> Self:
        try:
            for number, (host, address) in enumerate(self.addresses.items()):
                self._devices[host] = self._add(host, address, f"dn{os.getpid() % 100000}.{number}")
        except BaseException:
            self._delete()
            raise
        self._thread.start()
        return self

    def _add(self, host: str, address: str, device: str) -> int:
        namespace = self._namespace(host)
        _ip("netns", "add", namespace)
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(descriptor, _SET_INTERFACE, struct.pack("16sH", device.encode(), _TUN | _NO_HEADER))
        _ip("link", "set", device, "netns", namespace)
        _ip("-n", namespace, "address", "add", f"{address}/24", "dev", device)
        _ip("-n", namespace, "link", "set", device, "mtu", str(MTU), "up")
        _ip("-n", namespace, "link", "set", "lo", "up")
        return descriptor

    def _forward(self) -> None:
        numbers = {bytes(map(int, address.split("."))): host for host, address in self.addresses.items()}
        hosts = {descriptor: host for host, descriptor in self._devices.items()}
        due: list[tuple[float, int, str, bytes]] = []
        order = 0
        while True:
            wait_s = max(0.0, due[0][0] - time.monotonic()) if due else 1.0
            ready, _, _ = select.select([self._stop, *hosts], [], [], wait_s)
            if self._stop in ready:
                return
            for descriptor in ready:
                packet = os.read(descriptor, 65536)
                target = numbers.get(packet[16:20]) if packet[0] >> 4 == 4 else None
                lost = self._random.random() < self.loss or {hosts[descriptor], target} & self._cut
                if target is not None and not lost:
                    order += 1
                    heapq.heappush(due, (time.monotonic() + self.delay_s, order, target, packet))
            while due and due[0][0] <= time.monotonic():
                _, _, target, packet = heapq.heappop(due)
                if target not in self._cut:
                    os.write(self._devices[target], packet)

    def __exit__(self, *_: object) -> None:
        os.write(self._stopped, b".")
        self._thread.join(5)
        self._delete()

    def _delete(self) -> None:
        for descriptor in (*self._devices.values(), self._stop, self._stopped):
            os.close(descriptor)
        for host in self.addresses:
            subprocess.run(["ip", "netns", "delete", self._namespace(host)], capture_output=True, check=False)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
