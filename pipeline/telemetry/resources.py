"""Resource usage of a process and its host.

In: /proc, the file system, torch where it is loaded.  Out: collectors of CPU time, memory, GPU, free disk space and
lost log lines, read at each scrape.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pipeline import stdio

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class ProcessResources(Collector):
    """CPU time and memory of the calling process."""

    def __init__(self, worker: str) -> None:
        self._worker = [worker]

    def collect(self) -> Iterator[Metric]:
        """Yield CPU time and resident memory."""
        cpu = CounterMetricFamily("dasnet_process_cpu_seconds", "CPU time used.", labels=["worker"])
        times = os.times()
        cpu.add_metric(self._worker, times.user + times.system)
        memory = GaugeMetricFamily("dasnet_process_resident_bytes", "Resident memory.", labels=["worker"])
        resident_pages = int(Path("/proc/self/statm").read_text().split()[1])
        memory.add_metric(self._worker, resident_pages * _PAGE_BYTES)
        yield from (cpu, memory)


class LogLosses(Collector):
    """Log lines that the calling process could not write."""

    def collect(self) -> Iterator[Metric]:
        """Yield the lost log lines by output."""
        lost = CounterMetricFamily("dasnet_log_lines_lost", "Log lines that could not be written.", labels=["output"])
        for output, count in stdio.lost.items():
            lost.add_metric([output], count)
        yield lost


class GpuResources(Collector):
    """Memory and utilisation of a CUDA device; torch must be installed."""

    def __init__(self, device: str) -> None:
        self._device = device

    def collect(self) -> Iterator[Metric]:
        """Yield memory and, where available, utilisation."""
        import torch  # imported here: capture workers do not load torch

        free_bytes, total_bytes = torch.cuda.mem_get_info(self._device)
        label = [self._device]
        total = GaugeMetricFamily("dasnet_gpu_memory_bytes", "Total memory of the device.", labels=["device"])
        total.add_metric(label, total_bytes)
        used = GaugeMetricFamily("dasnet_gpu_memory_used_bytes", "Memory in use by all processes.", labels=["device"])
        used.add_metric(label, total_bytes - free_bytes)
        yield from (total, used)
        try:
            percent = torch.cuda.utilization(self._device)
        except (RuntimeError, ImportError):  # torch uses NVIDIA's management library, which may not be installed
            return
        busy = GaugeMetricFamily(
            "dasnet_gpu_utilisation_ratio", "Share of time the device was busy.", labels=["device"]
        )
        busy.add_metric(label, percent / 100)
        yield busy


class DiskResources(Collector):
    """Disk space of the folders that a run writes to, by name."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._folders = folders

    def collect(self) -> Iterator[Metric]:
        """Yield free and total space of each folder."""
        free = GaugeMetricFamily("dasnet_disk_free_bytes", "Free space where a run writes.", labels=["folder"])
        size = GaugeMetricFamily("dasnet_disk_size_bytes", "Disk size where a run writes.", labels=["folder"])
        for name, folder in self._folders.items():
            try:
                usage = shutil.disk_usage(folder)
            except OSError:  # not created yet
                continue
            free.add_metric([name], usage.free)
            size.add_metric([name], usage.total)
        yield from (free, size)
