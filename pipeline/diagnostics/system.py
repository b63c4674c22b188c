"""Resources of this machine, for `dasnet doctor`.

Reads /proc, system calls and the run folder.  A line that begins with NOTE names a likely problem and its remedy.
"""

import ctypes
import errno
import os
import resource
import shutil
from pathlib import Path

FEW_OPEN_FILES = 1024
LITTLE_DISK_BYTES = 5 * 10**9  # some weeks of store, snapshots and logs
LITTLE_MEMORY_BYTES = 2 * 10**9  # torch alone takes 0.5 GB
TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised


def describe_machine(folder: Path) -> list[str]:
    """Return the lines of the report; `folder` is where a run would write."""
    return [*_cores(), _memory(), _disk(folder), _clock(), _open_files(), _gpu_driver(), _video_devices()]


def _cores() -> list[str]:
    usable, visible = len(os.sched_getaffinity(0)), os.cpu_count() or 1
    lines = [f"cores: {usable} usable of {visible}"]
    quota = _quota()
    if quota is not None and quota < usable:
        lines.append(
            f"  NOTE     this container is limited to {quota:g} cores: raise its CPU limit, or threads will contend"
        )
    return lines


def _quota() -> float | None:
    """Return the CPU quota of this control group (v2) in cores, or None for no limit."""
    try:
        share, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if share == "max" else int(share) / int(period)
    except (OSError, ValueError):
        return None


def _memory() -> str:
    values = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    available, total = (int(values[name].split()[0]) * 1024 for name in ("MemAvailable", "MemTotal"))
    line = f"memory: {_gigabytes(available)} available of {_gigabytes(total)}"
    return line + (
        f"\n  NOTE     less than {_gigabytes(LITTLE_MEMORY_BYTES)}" if available < LITTLE_MEMORY_BYTES else ""
    )


def _disk(folder: Path) -> str:
    there = next(place for place in (folder, *folder.parents) if place.exists())
    usage = shutil.disk_usage(there)
    line = f"disk: {_gigabytes(usage.free)} free of {_gigabytes(usage.total)} at {there}"
    if not os.access(there, os.W_OK):
        line += f"\n  NOTE     {there} cannot be written: run in a writable folder, or set run_dir"
    if usage.free < LITTLE_DISK_BYTES:
        line += f"\n  NOTE     less than {_gigabytes(LITTLE_DISK_BYTES)}: store, snapshots and logs grow"
    return line


def _clock() -> str:
    """Return whether the clock that stamps events is synchronised; adjtimex(2) without a mode only reads."""
    record = (ctypes.c_long * 64)()  # struct timex is 208 bytes; modes, offset, freq, maxerror are its first fields
    state = ctypes.CDLL(None, use_errno=True).adjtimex(record)
    if state < 0:
        return f"clock: synchronisation unknown ({errno.errorcode.get(ctypes.get_errno(), 'error')})"
    if state == TIME_ERROR:
        return (
            "clock: not synchronised\n  NOTE     event times will be wrong: install chrony, or enable systemd-timesyncd"
        )
    return f"clock: synchronised, at most {record[3] / 1e3:.0f} ms off"


def _open_files() -> str:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    line = f"open files: {soft} per process (hard limit {hard})"
    return line + (
        f"\n  NOTE     less than {FEW_OPEN_FILES}: ulimit -n {FEW_OPEN_FILES}" if soft < FEW_OPEN_FILES else ""
    )


def _gpu_driver() -> str:
    """Return the driver, and whether it fits the CUDA version of the installed torch."""
    import torch

    try:
        words = Path("/proc/driver/nvidia/version").read_text().split("Kernel Module")[1].split()
        driver = next(word for word in words if word[0].isdigit())
    except (OSError, IndexError, StopIteration):
        return "GPU driver: no NVIDIA driver loaded"
    cuda = torch.version.cuda
    line = f"GPU driver: NVIDIA {driver}; torch is built for {f'CUDA {cuda}' if cuda else 'the CPU only'}"
    if cuda is None:
        return f"{line}\n  NOTE     the GPU is not used: install a CUDA build of torch"
    if not torch.cuda.is_available():
        return (
            f"{line}\n  NOTE     no usable GPU: CUDA {cuda} needs a newer driver, or access to /dev/nvidia* is denied"
        )
    return line


def _video_devices() -> str:
    devices = sorted(map(str, Path("/dev").glob("video*")))
    closed = [device for device in devices if not os.access(device, os.R_OK | os.W_OK)]
    line = f"video devices: {', '.join(devices) or 'none'}"
    return line + (f"\n  NOTE     no access to {', '.join(closed)}: join the group `video`" if closed else "")


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
