"""`dasnet doctor` reports the resources that the machine itself reports."""

import os
import resource
import shutil
from pathlib import Path

from pipeline.diagnostics.doctor import requirements
from pipeline.diagnostics.system import FEW_OPEN_FILES, describe_machine


def line_of(lines: list[str], start: str) -> str:
    (found,) = (line for line in lines if line.startswith(start))
    return found


def test_the_machine_is_described_as_it_is(tmp_path: Path):
    lines = describe_machine(tmp_path / "not" / "made" / "yet")
    disk = line_of(lines, "disk:")
    assert f"of {shutil.disk_usage(tmp_path).total / 1e9:.1f} GB at {tmp_path}" in disk
    assert f"cores: {len(os.sched_getaffinity(0))} usable" in line_of(lines, "cores:")
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    assert abs(float(line_of(lines, "memory:").split(" of ")[1].split(" GB")[0]) - pages) < 0.2
    clock = line_of(lines, "clock:")
    assert "NOTE" in clock if "not synchronised" in clock else "off" in clock or "unknown" in clock
    assert ("no NVIDIA driver" in line_of(lines, "GPU driver:")) is not Path("/proc/driver/nvidia/version").exists()


def test_too_few_open_files_are_pointed_out(tmp_path: Path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (FEW_OPEN_FILES - 1, hard))
        assert f"NOTE     less than {FEW_OPEN_FILES}" in line_of(describe_machine(tmp_path), "open files:")
        resource.setrlimit(resource.RLIMIT_NOFILE, (FEW_OPEN_FILES, hard))
        assert "NOTE" not in line_of(describe_machine(tmp_path), "open files:")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_every_declared_package_is_looked_for():
    assert {"torch", "av", "structlog", "pydantic"} <= set(requirements())
    assert "matplotlib" not in requirements(), "an extra"
