"""Measure the CUDA engine: `make bench-gpu`.  Needs a GPU, torch and numpy, and 6 minutes.

First correctness, logits and masks against the reference network in float32; then interleaved timings on the device;
then the whole engine with its copies; then a trace of how copies and computation overlap.  Prints a table and writes a
JSON file with a Chrome trace beside it.  Exits 1 where masks disagree or a target is missed, 2 without a GPU.
"""

import argparse
import copy
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.cuda.backend import CudaBackend
from model.cuda.device import COMPUTE, CudaDevice
from model.cuda.fused import TritonDASNet, fastest_network
from model.cuda.network import CudaDASNet
from model.cuda.plans import ExecutionPlan, PlanCache
from model.dasnet import DASNet
from model.engine.backend import padded

CHECKPOINT = Path(__file__).resolve().parent.parent / "model" / "weights" / "dasnet.safetensors"
SIZES = {"512x512": (512, 512), "256x320": (256, 320)}  # height, width; the targets are for the first
BATCHES = (1, 32, 8, 2, 16, 4)  # the targets' first, in case the time runs out
SPEEDUP_TARGETS = {1: 6.0, 32: 10.0}  # per frame, against the reference in batches of one, TF32 off
REFERENCE = {False: "reference fp32, TF32 off", True: "reference fp32, TF32 on"}
MIN_IOU = {"fp32": 0.9999, "fp16": 0.99, "bf16": 0.9}
MAX_FP32_ERROR = 1e-3
DTYPES = {"F16": np.float16, "F32": np.float32}
BUDGET_S = 270  # no new measurement starts after this
ROUNDS, WARM_UP_ROUNDS = 40, 5
Report = dict[str, Any]
cuda: Any = torch.cuda  # partly untyped


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/bench_gpu.json"))
    out: Path = parser.parse_args().out
    if not torch.cuda.is_available():
        print("bench-gpu: no CUDA device here, nothing was measured")
        return 2
    out.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with torch.inference_mode():
        bench = Bench(started + BUDGET_S)
        for measure in (bench.correctness, bench.timings):
            for size in SIZES:
                measure(size)
        bench.whole_engine()
        bench.trace(out.with_suffix(".trace.json"))
    report = bench.report | {"clocks_after": clocks(), "seconds": round(time.monotonic() - started, 1)}
    passed = judge(report)
    out.write_text(json.dumps(report, indent=1), encoding="utf-8")
    print("\n".join([*table(report), f"written: {out}"]))
    return 0 if passed else 1


class Bench:
    """Measures device times, from uint8 frames to probabilities; of the reference, from float images to logits."""

    def __init__(self, deadline_s: float) -> None:
        self.net, self.deadline_s = network(), deadline_s
        self.report: Report = {
            "device": torch.cuda.get_device_name(),
            "versions": {"python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda},
            "tf32_of_convolutions_by_default": torch.backends.cudnn.allow_tf32,
            "clocks_before": clocks(),
            **{part: {} for part in ("correctness", "timings", "whole engine", "plan_seconds")},
            "targets": [],
            "left_out": [],
        }
        self.reference = copy.deepcopy(self.net).cuda()
        self.device = CudaDevice()
        place = (self.device.torch_device, torch.float16)
        self.fast, plain = fastest_network(self.net, *place), CudaDASNet(self.net, *place)
        self.report["kernels"] = isinstance(self.fast, TritonDASNet)
        if isinstance(self.fast, TritonDASNet):
            self.report["variants"] = self.fast.fastest
        candidates = {"graph": (self.fast, True), "no graph": (self.fast, False), "torch's operations": (plain, True)}
        self.plans = {
            name: PlanCache(self.device, net, self.net.multiple, torch.float16, 64, graphs)
            for name, (net, graphs) in candidates.items()
        }

    def late(self, what: str) -> bool:
        late = time.monotonic() > self.deadline_s
        self.report["left_out"] += [what] * late
        return late

    def engine(self, precision: str = "fp16") -> CudaBackend:
        backend = CudaBackend(self.net, self.device, precision, self.net.multiple, tune=precision == "fp16")
        if precision == "fp16" and isinstance(backend._network, TritonDASNet) and isinstance(self.fast, TritonDASNet):
            backend._network.fastest = self.fast.fastest  # timed only once
        return backend

    def correctness(self, size: str) -> None:
        height, width = SIZES[size]
        frames = images(16, height, width)
        image = padded(torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255, self.net.multiple)
        with tf32(False):
            want = torch.cat([self.reference(image[n : n + 1].cuda()).cpu() for n in range(len(image))])
        masks = want[:, :, :height, :width].amax(1) > 0
        self.report["correctness"][size] = found = {}
        for precision in MIN_IOU:
            backend = self.engine(precision)
            maps = torch.from_numpy(backend.submit(frames).result())  # from a graph of 16
            logits = backend.logits(image)  # in the variants timed for it
            backend.close()
            drawn = maps.amax(1) > 0.5
            error, iou = float((logits - want).abs().max()), int((drawn & masks).sum()) / int((drawn | masks).sum())
            right = bool(maps.isfinite().all()) and iou >= MIN_IOU[precision]
            right = right and (precision != "fp32" or error <= MAX_FP32_ERROR)
            found[precision] = {"right": right, "largest_logit_error": error, "mask_iou": iou}
        found["of"] = {"right": True, "largest_logit": float(want.abs().max()), "mask_pixels": int(masks.sum())}

    def timings(self, size: str) -> None:
        """All variants in turn, round after round, each on other images than in the round before."""
        frames = torch.from_numpy(images(64, *SIZES[size])).cuda()
        inputs = padded((frames[:5].permute(0, 3, 1, 2) / 255).contiguous(), self.net.multiple)
        work = {name: partial(self._reference_ms, on, inputs) for on, name in REFERENCE.items()}
        for batch in BATCHES:
            if self.late(f"{size}, batch {batch}"):
                continue
            started = time.monotonic()
            for name, plans in self.plans.items():
                plan, pool = plans.get((batch, *SIZES[size])), [frames[:batch], frames[-batch:]]
                work[f"fp16, {name}, batch {batch}"] = partial(self._plan_ms, plan, pool)
            self.report["plan_seconds"][f"{size}, batch {batch}"] = round(time.monotonic() - started, 1)
        rounds = [{name: run(turn) for name, run in work.items()} for turn in range(WARM_UP_ROUNDS + ROUNDS)]
        counted = rounds[WARM_UP_ROUNDS:]
        self.report["timings"][size] = {name: figures([times_ms[name] for times_ms in counted]) for name in work}
        self.device.synchronize()
        for plans in self.plans.values():
            plans.clear()

    def _plan_ms(self, plan: ExecutionPlan, pool: list[Tensor], turn: int) -> float:
        elapsed_ms: list[float] = []

        def timed() -> None:
            plan.frames.copy_(pool[turn % 2])
            elapsed_ms.append(timed_ms(plan.run))

        self.device.launch(COMPUTE, "timed", timed)
        return elapsed_ms[0] / len(plan.frames)

    def _reference_ms(self, on: bool, pool: Tensor, turn: int) -> float:
        with tf32(on):
            return timed_ms(lambda: self.reference(pool[turn % len(pool)][None]))

    def whole_engine(self) -> None:
        """Measure the wall-clock time from numpy to numpy, with two batches in flight."""
        frames, found = images(64, *SIZES["512x512"]), self.report["whole engine"]

        def reference_frame(frame: Any) -> Any:
            image = torch.from_numpy(frame[None]).cuda().permute(0, 3, 1, 2).float() / 255
            return self.reference(image).sigmoid().cpu().numpy()

        for on, name in REFERENCE.items():
            with tf32(on):
                found[name] = wall_figures(lambda: list(map(reference_frame, frames)), len(frames))
        backend = self.engine()
        for batch, threshold in ((1, None), (1, 0.5), (32, None), (32, 0.5)):
            parts = [(frames[start : start + batch], threshold) for start in range(0, len(frames), batch)]
            name = f"fp16, {'masks' if threshold else 'maps'}, batch {batch}"
            if not self.late(f"whole engine, {name}"):
                found[name] = wall_figures(partial(in_flight, backend, parts * 4), 4 * len(frames))
        backend.close()

    def trace(self, path: Path) -> None:
        if self.late("trace"):
            return
        backend = self.engine()
        parts = [(images(16, *SIZES["512x512"]), None) for _ in range(2)] * 5
        in_flight(backend, parts)
        try:
            with torch.profiler.profile() as profiler:
                in_flight(backend, parts)
                torch.cuda.synchronize()
            profiler.export_chrome_trace(str(path))
            events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
            self.report["copy_overlap_percent"] = overlap_percent(events)
        except (RuntimeError, OSError, ValueError) as error:  # without a profiler the timings are still worth having
            self.report["left_out"] += [f"trace ({error})"]
        backend.close()


def in_flight(backend: CudaBackend, parts: list[Any]) -> None:
    """Submit each batch before taking the last one's result, as the pipeline does."""
    futures = [backend.submit(*parts[0])]
    for part in parts[1:]:
        futures.append(backend.submit(*part))
        futures.pop(0).result()
    futures[0].result()


def timed_ms(work: Callable[[], object]) -> float:
    start, end = (cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def wall_figures(work: Callable[[], object], frames: int) -> Report:
    times_s = [time.perf_counter()]
    for _ in range(5):
        work()
        times_s.append(time.perf_counter())
    return figures([1000 * float(elapsed_s) / frames for elapsed_s in np.diff(times_s)[1:]])


def figures(times_ms: list[float]) -> Report:
    return {"median_ms": float(np.median(times_ms)), "p95_ms": float(np.percentile(times_ms, 95)), "n": len(times_ms)}


def tf32(on: bool) -> Any:
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=False, allow_tf32=on)


def overlap_percent(events: list[Any]) -> float | None:
    """Return the percentage of the copies' time that overlaps kernels; None if the profiler recorded no copies."""
    spans = sorted((event["ts"], event["ts"] + event["dur"]) for event in events if event.get("cat") == "kernel")
    copies = [event for event in events if event.get("cat") == "gpu_memcpy" and "DtoD" not in event["name"]]
    overlap_us = 0.0
    for copied in copies:
        at, end = copied["ts"], copied["ts"] + copied["dur"]
        for first, last in spans:
            overlap_us += max(0.0, min(last, end) - max(first, at))
            at = max(at, min(last, end))  # concurrent kernels count once
    total_us = sum(copied["dur"] for copied in copies)
    return 100 * overlap_us / total_us if total_us else None


def network() -> DASNet:
    """Return the network with the shipped weights, read without the safetensors package."""
    content = CHECKPOINT.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    net = DASNet(**json.loads(header.pop("__metadata__")["dasnet"])["arguments"])
    for name, entry in header.items():
        if name.startswith(("classifier.", "judge.")):
            continue
        first, last = (start + offset for offset in entry["data_offsets"])
        values = np.frombuffer(content[first:last], DTYPES[entry["dtype"]]).reshape(entry["shape"])
        net.get_parameter(name).data.copy_(torch.from_numpy(values.astype(np.float32)))
    return net.eval()


def images(count: int, height: int, width: int) -> Any:
    """Return random noisy skies with dark targets, every fifth only noise; zeros could run faster."""
    random = np.random.default_rng()
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    made = random.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    for image in (image for number, image in enumerate(made) if number % 5 < 4):
        sky = 190 - 40 * rows / height
        for _ in range(8):
            distance = np.hypot(rows - random.integers(height), columns - random.integers(width))
            sky -= 110 * (distance < random.integers(1, 8))
        image[:] = (sky[:, :, None] + image % 9).clip(0, 255)
    return made


def clocks() -> str:
    query = "nvidia-smi --query-gpu=clocks.sm,clocks.mem,power.draw,driver_version --format=csv,noheader || true"
    return subprocess.run(["sh", "-c", query], capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def judge(report: Report) -> bool:
    """Add the speed-ups to the report and return whether every check and target is met."""
    rows = report["timings"]["512x512"]
    for batch, target in SPEEDUP_TARGETS.items():
        own_ms = rows.get(f"fp16, graph, batch {batch}", {"median_ms": float("inf")})["median_ms"]
        ratios = {f"times as fast as {name}": round(rows[name]["median_ms"] / own_ms, 2) for name in REFERENCE.values()}
        passed = ratios[f"times as fast as {REFERENCE[False]}"] >= target
        report["targets"].append({"passed": passed, "batch": batch, "target": target} | ratios)
    right = all(row["right"] for found in report["correctness"].values() for row in found.values())
    return right and all(each["passed"] for each in report["targets"])


def table(report: Report) -> Iterator[str]:
    yield f"{report['device']}, {report['versions']}"
    for size, found in report["correctness"].items():
        yield from (f"{size} {precision}: {row}" for precision, row in found.items())
    for title, rows in (*report["timings"].items(), ("whole engine, 512x512", report["whole engine"])):
        yield f"{title + ', ms per frame':<40}{'median':>10}{'p95':>10}{'speed-up':>10}"
        for name, row in rows.items():
            ratio = rows[REFERENCE[False]]["median_ms"] / row["median_ms"]
            yield f"  {name:<38}{row['median_ms']:>10.3f}{row['p95_ms']:>10.3f}{ratio:>10.2f}"
    yield f"time of copies that overlapped a kernel, percent: {report.get('copy_overlap_percent')}"
    yield from (f"target: {each}" for each in report["targets"])
    yield f"left out: {report['left_out'] or 'nothing'}"


if __name__ == "__main__":
    sys.exit(main())
