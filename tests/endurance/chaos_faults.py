"""The faults of `endurance.chaos`: each breaks something, for a while where needed, and repairs it.

In: the target.  A fault returns when its cause has ended.
"""

import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
import urllib.request
from contextlib import closing
from pathlib import Path

import zmq

from endurance.chaos_sinks import SINK_FAULTS
from endurance.chaos_sinks import unavailable as unavailable_sinks
from endurance.chaos_target import HOLD_S, Fault, Target, changed, restart
from pipeline.transport.wire import VERSION

PASSWORD, WRONG = "right", "wrong"
IDLE_CONNECTIONS = 300
PACKET_LOSS_PERCENT = 2
CLOCK_STEPS_S = (-7200, -3600, 0, 3600, 7200)
GARBAGE = 200  # messages per socket


def kill_capture(target: Target) -> None:
    os.kill(target.pid(f"capture-{target.camera}"), signal.SIGKILL)


def kill_segmentation(target: Target) -> None:
    os.kill(target.pid("segmentation"), signal.SIGKILL)


def kill_tracking(target: Target) -> None:
    os.kill(target.pid("tracking"), signal.SIGKILL)


def kill_console(target: Target) -> None:
    os.kill(target.pid("console"), signal.SIGKILL)


def end_capture(target: Target) -> None:
    """Send SIGTERM to a capture worker: it exits with 0 and must be restarted nevertheless."""
    os.kill(target.pid(f"capture-{target.camera}"), signal.SIGTERM)


def end_segmentation(target: Target) -> None:
    os.kill(target.pid("segmentation"), signal.SIGTERM)


def end_tracking(target: Target) -> None:
    os.kill(target.pid("tracking"), signal.SIGTERM)


def end_console(target: Target) -> None:
    os.kill(target.pid("console"), signal.SIGTERM)


def supervisor_killed(target: Target) -> None:
    """Kill the supervisor, and twice again while its workers start; the last start finds all leftovers."""
    for wait_s in (0.0, target.rng.uniform(0.5, 1.5), target.rng.uniform(1.5, 3.0)):
        time.sleep(wait_s)
        target.program.process.kill()
        target.program.process.wait()
        target.program.__enter__()


def configuration_half_written(target: Target) -> None:
    """Reload a truncated configuration, and restart a worker meanwhile."""
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
    """Restart a camera with another resolution."""
    name = target.camera
    target.shown[name] = 1 - target.shown.get(name, 0)
    target.servers.command(f"set {name} file {target.clips[target.shown[name]]}")
    restart(target, name)


def camera_frozen(target: Target) -> None:
    """Stop a camera's frames while its connection stays open."""
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
    """Fill the run folder's disk; snapshots and store have their own."""
    full(target.run_dir)


def snapshots_disk_full(target: Target) -> None:
    full(target.run_dir / "snapshots")


def store_disk_full(target: Target) -> None:
    full(target.store.parent)


def snapshots_read_only(target: Target) -> None:
    folder = target.run_dir / "snapshots"
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    changed(target)
    subprocess.run(["mount", "-o", "remount,rw", folder], check=True)


def store_read_only(target: Target) -> None:
    """Mount an empty read-only disk over the store."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "chaos", target.store.parent], check=True)
    changed(target)
    subprocess.run(["umount", target.store.parent], check=True)


def store_locked(target: Target) -> None:
    with closing(sqlite3.connect(target.store, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        changed(target)
        time.sleep(HOLD_S["lock"])


def full(folder: Path) -> None:
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(64 << 10))
        except OSError:
            pass
        time.sleep(HOLD_S["disk"])
    filler.unlink()


def tracking_killed_amid_events(target: Target) -> None:
    """Kill the track worker at a random moment of a camera's restart."""
    name = target.camera
    target.servers.command(f"down {name}")
    time.sleep(target.rng.uniform(0, HOLD_S["network"]))
    kill_tracking(target)
    target.servers.command(f"up {name}")


def stopped(target: Target) -> None:
    """Stop a worker for a while, as on a swapping machine."""
    pid = target.pid(target.worker)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(HOLD_S["stopped"])
    os.kill(pid, signal.SIGCONT)


def garbage(target: Target) -> None:
    """Send random messages and bytes to every socket of the program."""
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
                    known = [bytes([0xDA, VERSION])] if rng.random() < 0.5 else []  # valid header
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
            except OSError:  # closed by the program, as expected
                continue


def stderr_closed(target: Target) -> None:
    """Close the log pipe while a worker restarts."""
    with target.stderr.closed():
        os.kill(target.pid(target.worker), signal.SIGKILL)
        time.sleep(HOLD_S["stderr"])


def stderr_full(target: Target) -> None:
    """Fill the log pipe while a worker restarts: a blocking write would wait for ever."""
    with target.stderr.full():
        os.kill(target.pid(target.worker), signal.SIGKILL)
        time.sleep(HOLD_S["stderr"])


def console_port_taken(target: Target) -> None:
    """Occupy the console's port while it restarts."""
    os.kill(target.pid("console"), signal.SIGKILL)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        while True:
            try:
                other.bind(("127.0.0.1", target.ports[1]))
                break
            except OSError:  # the console has not ended yet
                time.sleep(0.001)
        other.listen()
        time.sleep(HOLD_S["port"])


def idle_connections(target: Target) -> None:
    """Open many idle connections to every page; they stay open where it stops answering, which prevents recovery."""
    for port in target.ports:
        silent = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(IDLE_CONNECTIONS)]
        if not answers(port):
            target.idle += silent
        for connection in silent if not target.idle else ():
            connection.close()


def answers(port: int) -> bool:
    """Return whether a page is served on a port."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2):
            return True
    except OSError:
        return False


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
        snapshots_disk_full,
        snapshots_read_only,
        store_disk_full,
        store_read_only,
        store_locked,
        *SINK_FAULTS,
        tracking_killed_amid_events,
        stopped,
        garbage,
        stderr_closed,
        stderr_full,
        console_port_taken,
        idle_connections,
    )
}


def unavailable(own_namespace: bool) -> dict[str, str]:
    """Return the faults that are not possible here, with the reason."""
    missing: dict[str, str] = {}
    if not own_namespace:
        mounts = ("disk_full", "snapshots_disk_full", "snapshots_read_only", "store_disk_full", "store_read_only")
        missing |= dict.fromkeys((*mounts, "packet_loss"), "needs root and unshare")
    elif shutil.which("nft") is None:
        missing["packet_loss"] = "needs nftables"
    return missing | unavailable_sinks()
