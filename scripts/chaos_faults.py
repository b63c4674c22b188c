"""The faults of `chaos.py`: each breaks something, holds it for a while where it has to, and mends it.

In: the target.  A fault returns at the moment when its cause has ended.
"""

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from fleet import RtspCameras, Running, processes

from pipeline.transport.wire import VERSION

PASSWORD, WRONG = "right", "wrong"
PACKET_LOSS_PERCENT = 2
HOLD_S = {"network": 3.0, "frozen": 6.0, "loss": 8.0, "disk": 5.0, "stopped": 10.0}
CLOCK_STEPS_S = (-7200, -3600, 0, 3600, 7200)
GARBAGE = 200  # messages a socket


@dataclass
class Target:
    """What is hit, and with what."""

    program: Running
    servers: RtspCameras
    run_dir: Path
    clips: tuple[Path, Path]  # of different resolutions
    rng: random.Random
    ports: tuple[int, ...]  # of HTTP
    config: Path
    clock: Path  # what the program's clock is off by, in s
    shown: dict[str, int] = field(default_factory=dict)  # which of the clips each camera shows

    @property
    def camera(self) -> str:
        return self.rng.choice(sorted(self.servers.ports))

    def pid(self, worker: str) -> int:
        return processes(self.program)[worker][0]


def kill_capture(target: Target) -> None:
    os.kill(target.pid(f"capture-{target.camera}"), signal.SIGKILL)


def kill_segmentation(target: Target) -> None:
    os.kill(target.pid("segmentation"), signal.SIGKILL)


def kill_tracking(target: Target) -> None:
    os.kill(target.pid("tracking"), signal.SIGKILL)


def kill_console(target: Target) -> None:
    os.kill(target.pid("console"), signal.SIGKILL)


def end_capture(target: Target) -> None:
    """SIGTERM, which the program did not send: the worker ends in order, with 0, and must be replaced all the same."""
    os.kill(target.pid(f"capture-{target.camera}"), signal.SIGTERM)


def end_segmentation(target: Target) -> None:
    os.kill(target.pid("segmentation"), signal.SIGTERM)


def end_tracking(target: Target) -> None:
    os.kill(target.pid("tracking"), signal.SIGTERM)


def end_console(target: Target) -> None:
    os.kill(target.pid("console"), signal.SIGTERM)


def supervisor_killed(target: Target) -> None:
    """Killed, and twice again while its workers start; the last start finds whatever those before left."""
    for wait_s in (0.0, target.rng.uniform(0.5, 1.5), target.rng.uniform(1.5, 3.0)):
        time.sleep(wait_s)
        target.program.process.kill()
        target.program.process.wait()
        target.program.__enter__()


def configuration_half_written(target: Target) -> None:
    """The program is told to read it while it is so, and a worker must come back."""
    whole = target.config.read_bytes()
    target.config.write_bytes(whole[: target.rng.randrange(len(whole))])
    target.program.process.send_signal(signal.SIGHUP)
    kill_capture(target)
    time.sleep(HOLD_S["network"])
    target.config.write_bytes(whole)
    target.program.process.send_signal(signal.SIGHUP)


def camera_down(target: Target) -> None:
    restart(target, target.camera)


def camera_changed(target: Target) -> None:
    """It comes back with another resolution."""
    name = target.camera
    target.shown[name] = 1 - target.shown.get(name, 0)
    target.servers.command(f"set {name} file {target.clips[target.shown[name]]}")
    restart(target, name)


def camera_frozen(target: Target) -> None:
    """The connection stays, nothing comes."""
    name = target.camera
    target.servers.command(f"freeze {name}")
    time.sleep(HOLD_S["frozen"])
    target.servers.command(f"resume {name}")


def wrong_password(target: Target) -> None:
    name = target.camera
    target.servers.command(f"set {name} password {WRONG}")
    restart(target, name)
    time.sleep(HOLD_S["network"])
    target.servers.command(f"set {name} password {PASSWORD}")
    restart(target, name)


def restart(target: Target, name: str) -> None:
    target.servers.command(f"down {name}")
    time.sleep(HOLD_S["network"])
    target.servers.command(f"up {name}")


def packet_loss(_: Target) -> None:
    chain = "type filter hook input priority 0;"
    rule = f"numgen random mod 100 < {PACKET_LOSS_PERCENT} drop"
    subprocess.run(["nft", f"table inet chaos {{ chain input {{ {chain} {rule}\n}}\n}}"], check=True)
    time.sleep(HOLD_S["loss"])
    subprocess.run(["nft", "delete table inet chaos"], check=True)


def clock_step(target: Target) -> None:
    target.clock.write_text(f"{target.rng.choice(CLOCK_STEPS_S):+d}")
    time.sleep(HOLD_S["network"])


def disk_full(target: Target) -> None:
    filler = target.run_dir / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(64 << 10))
        except OSError:
            pass
        time.sleep(HOLD_S["disk"])
    filler.unlink()


def stopped(target: Target) -> None:
    """A worker stands still, as on a machine that swaps."""
    pids = processes(target.program)
    pid = pids[target.rng.choice(sorted(set(pids) - {"supervisor"}))][0]
    os.kill(pid, signal.SIGSTOP)
    time.sleep(HOLD_S["stopped"])
    os.kill(pid, signal.SIGCONT)


def garbage(target: Target) -> None:
    """Random messages and bytes to every socket that the program listens on."""
    rng = target.rng
    kinds = {
        "segmentation": zmq.DEALER,
        "results": zmq.PUSH,
        "heartbeat": zmq.PUSH,
        "live": zmq.XSUB,
        "reload": zmq.DEALER,
    }
    with zmq.Context() as context:
        for name, kind in kinds.items():
            with context.socket(kind) as sender:
                sender.setsockopt(zmq.LINGER, 500)
                sender.connect(f"ipc://{target.run_dir}/{name}.sock")
                for _ in range(GARBAGE):
                    known = [bytes([0xDA, VERSION])] if rng.random() < 0.5 else []  # as a message of the program begins
                    parts = known + [rng.randbytes(rng.randrange(100)) for _ in range(rng.randrange(1, 4))]
                    if sender.poll(200, zmq.POLLOUT):
                        sender.send_multipart(parts)
    for path in target.run_dir.glob("*.sock"):
        send_bytes(socket.AF_UNIX, str(path), rng)
    for port in target.ports:
        send_bytes(socket.AF_INET, ("127.0.0.1", port), rng)


def send_bytes(family: int, address: str | tuple[str, int], rng: random.Random) -> None:
    for _ in range(5):
        with socket.socket(family) as raw:
            try:
                raw.connect(address)
                raw.sendall(rng.randbytes(4096))
            except OSError:  # it hangs up, as it should
                continue


Fault = Callable[[Target], None]
FAULTS: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (
        kill_capture,
        kill_segmentation,
        kill_tracking,
        kill_console,
        end_capture,
        end_segmentation,
        end_tracking,
        end_console,
        supervisor_killed,
        configuration_half_written,
        camera_down,
        camera_changed,
        camera_frozen,
        wrong_password,
        packet_loss,
        clock_step,
        disk_full,
        stopped,
        garbage,
    )
}


def left_out(own_namespace: bool) -> dict[str, str]:
    """Which faults cannot be made here, and why."""
    missing = {}
    if not own_namespace:
        missing["disk_full"] = missing["packet_loss"] = "needs root and unshare"
    elif shutil.which("nft") is None:
        missing["packet_loss"] = "needs nftables"
    return missing
