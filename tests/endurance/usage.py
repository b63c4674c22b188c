"""What a running program uses: processor time and memory by kind of process, and the machine's energy."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from endurance.fleet import Running, processes, resident_bytes

CAMERAS = "cameras"
RAPL = Path("/sys/class/powercap")  # the processor's own energy meters
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Usage:
    """What a program uses from now on, and beside it the process of its cameras."""

    def __init__(self, program: Running, cameras_pid: int) -> None:
        self._program, self._cameras_pid = program, cameras_pid
        self._cpu_s, self._energy_j, self._time_s = self._used_s(), energy_j(), uptime_s()

    def since_start(self, frames: int, cameras: int) -> dict[str, Any]:
        """Return processor time for each of these frames, and processor, memory and energy for each camera.

        Energy is the whole machine's, None where it is not readable.
        """
        seconds = uptime_s() - self._time_s
        used_s = {role: now_s - self._cpu_s.get(role, 0.0) for role, now_s in self._used_s().items()}
        own_s = sum(value for role, value in used_s.items() if role != CAMERAS)
        memory = sum(resident_bytes(pid) for pids in processes(self._program).values() for pid in pids)
        joules = None if self._energy_j is None else (energy_j() or 0.0) - self._energy_j
        return {
            "cpu_ms_per_frame": {role: round(1e3 * value / max(1, frames), 3) for role, value in used_s.items()},
            "cpu_percent_per_camera": round(100 * own_s / seconds / cameras, 1),
            "memory_mb_per_camera": round(memory / 1e6 / cameras),
            "watts_per_camera": None if joules is None or joules < 0 else round(joules / seconds / cameras, 2),
        }

    def _used_s(self) -> dict[str, float]:
        return {**cpu_s(self._program), CAMERAS: process_cpu_s(self._cameras_pid)}


def cpu_s(program: Running) -> dict[str, float]:
    """Return the processor time that a program's processes have taken, by worker; all captures together."""
    found: dict[str, float] = {}
    for name, pids in processes(program).items():
        role = name.partition("-")[0]
        found[role] = found.get(role, 0.0) + sum(process_cpu_s(pid) for pid in pids)
    return found


def process_cpu_s(pid: int) -> float:
    """Return the processor time of a process; 0 for an ended one."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def energy_j() -> float | None:
    """Return the energy that all processors have taken; None where nothing tells."""
    values = list(_meters())
    return sum(values) / 1e6 if values else None


def _meters() -> Iterator[int]:
    for meter in RAPL.glob("*-rapl:[0-9]"):  # packages; their parts are included
        try:
            yield int((meter / "energy_uj").read_text())
        except (OSError, ValueError):
            continue


def uptime_s() -> float:
    """Return the time since the machine's start."""
    return float(Path("/proc/uptime").read_text().split()[0])
