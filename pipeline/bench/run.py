"""`dasnet bench`: measure the speed and accuracy of each inference engine with a checkpoint on this machine.

Each candidate runs in its own process.  Candidates take turns, A B C A B C, with one forward pass on a new input, so
that other load on the machine affects all of them equally; only one computes at a time.  The baseline is the reference
implementation in eager float32 under the stock allocator (and others); errors are relative to it in float64.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import Progress

from model.checkpoint import load
from model.export.onnx import PACKAGES
from model.native.processor import has_fast_bf16
from pipeline.bench.frames import CLIPS, frame_file, save_frames
from pipeline.bench.render import publish
from pipeline.bench.results import REFERENCES, MaskComparison, Report, Timing, Variant, describe_checkpoint, machine
from pipeline.bench.worker import CandidateProcess, Failed, Json, Task, Unavailable
from pipeline.checkpoints import checkpoint_path
from pipeline.errors import ConfigError

WARM_UP_ROUNDS = 2  # not counted: buffers are allocated and kernels compiled
COMPARED_INPUTS = 2  # inputs per size for the comparison with float64, as one batch
SEED = 1000
PRECISIONS = ("fp32", "bf16", "fp16")
MAX_BATCH = 1024


@dataclass(frozen=True)
class Candidate:
    """A way to run the network."""

    name: str
    build: str  # "module:function", see worker.Task
    precisions: tuple[str, ...] = ("fp32",)
    arguments: dict[str, str] = field(default_factory=dict)
    required_packages: tuple[str, ...] = ()
    allocator: str = "kept"  # a key of worker.ALLOCATORS; the native engine sets more itself
    always: bool = False  # regardless of the requested precisions
    slow: bool = False  # only with --compile


_WORKER = "pipeline.bench.worker"
FLOAT64 = Candidate("float64", f"{_WORKER}:reference", ("fp64",))
CANDIDATES: tuple[Candidate, ...] = (
    Candidate(REFERENCES["stock"], f"{_WORKER}:reference", allocator="stock", always=True),
    Candidate(REFERENCES["thp"], f"{_WORKER}:reference", allocator="thp", always=True),
    Candidate(REFERENCES["kept"], f"{_WORKER}:reference", allocator="kept", always=True),
    Candidate("native", f"{_WORKER}:engine", ("fp32", "bf16"), {"kind": "native"}, allocator="thp"),
    Candidate("torch", f"{_WORKER}:engine", ("fp32", "bf16"), {"kind": "torch"}),
    Candidate("cuda", f"{_WORKER}:engine", PRECISIONS, {"kind": "cuda", "device": "cuda"}),
    Candidate("onnxruntime", f"{_WORKER}:onnx_runtime", required_packages=PACKAGES, allocator="stock"),
    Candidate(
        "openvino",
        f"{_WORKER}:openvino",
        ("fp32", "bf16"),
        required_packages=("openvino", *PACKAGES),
        allocator="stock",
    ),
    Candidate("inductor", f"{_WORKER}:inductor", ("fp32", "bf16"), slow=True),
)


@dataclass(frozen=True)
class BenchOptions:
    """Options of `dasnet bench`; lists are written as on the command line, a size is HEIGHTxWIDTH."""

    sizes: str = "256x256,512x512"
    batches: str = "1,4"
    precisions: str = "fp32,bf16,fp16"
    threads: str | None = None  # None: the number of usable cores
    rounds: int = 10
    frames: Path | None = None
    json: Path | None = None
    plot: Path | None = None
    compile: bool = False


def run_bench(checkpoint: Path | None, options: BenchOptions) -> int:
    """Benchmark every candidate that is available on this machine.

    Returns:
        The exit code: 1 where a candidate failed; the others are measured nevertheless.

    Raises:
        ConfigError: An option is invalid.
    """
    path = checkpoint_path(checkpoint)
    loaded = load(path)
    multiple = int(getattr(loaded.network, "multiple", 32))
    plan = BenchPlan.of(options, multiple)
    if options.plot and (options.plot.suffix != ".png" or find_spec("matplotlib") is None):
        raise ConfigError(f"plot {options.plot}: must be a path ending in .png, and matplotlib must be installed")
    for output in (options.json, options.plot):
        _check_writable(output)
    settings = {**asdict(plan), "allocators": {candidate.name: candidate.allocator for candidate in CANDIDATES}}
    report = Report(machine(), describe_checkpoint(path, loaded.metadata), settings)
    comparable = options.frames is not None or CLIPS.is_dir()
    if not comparable:
        report.notes.append(f"no masks compared: {CLIPS} does not exist here; set recordings with --frames")
    with tempfile.TemporaryDirectory(prefix="dasnet-bench-") as name:
        folder = Path(name)
        frames = save_frames(options.frames or CLIPS, loaded.metadata, folder) if comparable else {}
        report.frames = list(frames)
        with (
            Progress(transient=True, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress,
            CandidatePool(report, folder, path, progress) as pool,
        ):
            _measure(plan, report, pool, _AccuracyCheck(plan, frames, folder, multiple))
    return publish(report, options.json, options.plot)


@dataclass(frozen=True)
class BenchPlan:
    """Parsed options."""

    sizes: list[tuple[int, int]]
    batches: list[int]
    precisions: list[str]
    threads: list[int]
    rounds: int
    compile: bool

    @classmethod
    def of(cls, options: BenchOptions, multiple: int) -> Self:
        """Parse options.

        Raises:
            ConfigError: An option is invalid.
        """
        cores = len(os.sched_getaffinity(0))
        precisions = options.precisions.split(",")
        if unknown := [name for name in precisions if name not in PRECISIONS]:
            raise ConfigError(f"precision {unknown[0]!r}; must be one of {', '.join(PRECISIONS)}")
        if options.rounds < 1:
            raise ConfigError(f"rounds {options.rounds}; must be 1 or more")
        return cls(
            sizes=[_size(text, multiple) for text in options.sizes.split(",")],
            batches=[_number("batch", text, MAX_BATCH) for text in options.batches.split(",")],
            precisions=precisions,
            threads=[_number("threads", text, cores) for text in (options.threads or str(cores)).split(",")],
            rounds=options.rounds,
            compile=options.compile,
        )


class CandidatePool:
    """The running candidates; one that fails is removed, with its reason in the report, and the others continue."""

    def __init__(self, report: Report, folder: Path, checkpoint: Path, progress: Progress) -> None:
        self._report, self._folder, self._checkpoint, self._progress = report, folder, checkpoint, progress
        self._workers: dict[Variant, CandidateProcess] = {}
        self._bar = progress.add_task("", total=None)

    def __iter__(self) -> Iterator[Variant]:
        return iter(list(self._workers))

    def start(self, candidate: Candidate, precision: str, threads: int, compile_too: bool) -> None:
        """Start a variant; record the reason in the report where it is unavailable or fails.

        An unavailable one is tried only once.
        """
        variant = Variant(candidate.name, precision, threads)
        if (candidate.name, precision) in self._report.unavailable:
            return
        self._progress.update(self._bar, description=f"starting {variant}")
        missing = [name for name in candidate.required_packages if find_spec(name) is None]
        arguments = (str(self._checkpoint), precision, threads, str(self._folder), candidate.allocator)
        try:
            if candidate.slow and not compile_too:
                raise Unavailable("takes minutes to compile; included with --compile")
            if missing:
                raise Unavailable(f"not installed: {', '.join(missing)}")
            if precision == "bf16" and candidate.arguments.get("device") != "cuda" and not has_fast_bf16():
                raise Unavailable("this CPU has no bfloat16 instructions: a frame would take minutes")
            task = Task(candidate.build, candidate.arguments, *arguments)
            self._workers[variant] = CandidateProcess(task, variant.slug)
        except Unavailable as reason:
            self._report.unavailable[candidate.name, precision] = str(reason)
        except Failed as reason:
            self._report.failed[variant] = f"starting: {reason}"

    def set_total(self, requests_each: int) -> None:
        """Set the number of requests that each variant will get, for the progress bar."""
        self._progress.update(self._bar, total=requests_each * len(self._workers), completed=0)

    def ask(self, variant: Variant, during: str, do: str, **request: Any) -> Json | None:
        """Return a variant's reply, or None where it failed."""
        self._progress.update(self._bar, description=f"{during}: {variant}", advance=1)
        try:
            return self._workers[variant].ask(do, **request)
        except (Failed, Unavailable) as reason:
            self._report.failed[variant] = f"{during}: {reason}"
            self._workers.pop(variant).close()
            return None

    def close(self) -> None:
        """Stop all variants."""
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()


def _measure(plan: BenchPlan, report: Report, pool: CandidatePool, comparisons: "_AccuracyCheck") -> None:
    pool.start(FLOAT64, "fp64", max(plan.threads), compile_too=False)
    pool.set_total(comparisons.count)
    comparisons.save(pool)
    pool.close()
    for threads in plan.threads:
        for candidate in CANDIDATES:
            for precision in candidate.precisions:
                if precision in plan.precisions or candidate.always:
                    pool.start(candidate, precision, threads, plan.compile)
        pool.set_total(comparisons.count + len(plan.sizes) * len(plan.batches) * (WARM_UP_ROUNDS + plan.rounds))
        comparisons.compare(pool, report)
        _time_round_robin(plan, report, pool)
        pool.close()


def _time_round_robin(plan: BenchPlan, report: Report, pool: CandidatePool) -> None:
    """Time every variant once per round, on the round's input."""
    seed = SEED
    for height, width in plan.sizes:
        for batch in plan.batches:
            for number in range(-WARM_UP_ROUNDS, plan.rounds):
                seed += 1
                for variant in pool:
                    request = {"height_px": height, "width_px": width, "batch": batch, "seed": seed}
                    answer = pool.ask(variant, f"{height}x{width}, batch {batch}", "time", **request)
                    if answer is not None and number >= 0:
                        report.samples.append(Timing(variant, height, width, batch, number, seed, answer["ms"]))


class _AccuracyCheck:
    """Compares the candidates' logits and masks with those of the float64 reference, which are stored in files."""

    def __init__(self, plan: BenchPlan, frames: dict[str, float], folder: Path, multiple: int) -> None:
        self._requests: list[tuple[str, str, dict[str, Any]]] = []
        for height, width in plan.sizes:
            request = {"height_px": height, "width_px": width, "batch": COMPARED_INPUTS, "seed": SEED}
            file = str(folder / f"logits-{height}x{width}.npy")
            self._requests.append((f"logits at {height}x{width}", "logits", {**request, "file": file}))
        for number, (name, threshold) in enumerate(frames.items()):
            frame = {"frame": str(frame_file(folder, number)), "multiple": multiple, "threshold": threshold}
            self._requests.append((f"mask of {name}", "mask", {**frame, "file": str(folder / f"mask{number}.npy")}))

    @property
    def count(self) -> int:
        """Number of requests per candidate."""
        return len(self._requests)

    def save(self, pool: CandidatePool) -> None:
        """Store the results of the float64 reference."""
        self._ask_all(pool, save=True)

    def compare(self, pool: CandidatePool, report: Report) -> None:
        """Add the errors and mask overlaps of all variants to the report."""
        # The float64 reference may have run out of memory: nothing to compare with.
        self._requests = [entry for entry in self._requests if Path(entry[2]["file"]).exists()]
        for variant, during, request, answer in self._ask_all(pool, save=False):
            if "max_error" in answer:
                report.errors[variant, (request["height_px"], request["width_px"])] = answer["max_error"]
            elif "both_px" in answer:
                report.masks.append(
                    MaskComparison(variant, during.removeprefix("mask of "), answer["both_px"], answer["either_px"])
                )

    def _ask_all(self, pool: CandidatePool, save: bool) -> list[tuple[Variant, str, dict[str, Any], Json]]:
        answers = []
        for variant in pool:
            for during, do, request in self._requests:
                answer = pool.ask(variant, during, do, save=save, **request)
                if answer is None:
                    break
                answers.append((variant, during, request, answer))
        return answers


def _check_writable(path: Path | None) -> None:
    """Raise ConfigError where a file cannot be written, before measuring."""
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("ab").close()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}); must be a writable path") from error


def _size(text: str, multiple: int) -> tuple[int, int]:
    height, _, width = text.strip().partition("x")
    if not (height.isdecimal() and width.isdecimal()) or any(
        not int(side) or int(side) % multiple for side in (height, width)
    ):
        raise ConfigError(f"size {text!r}; must be HEIGHTxWIDTH, both multiples of {multiple}")
    return int(height), int(width)


def _number(name: str, text: str, most: int) -> int:
    if not text.strip().isdecimal() or not 1 <= int(text) <= most:
        raise ConfigError(f"{name} {text!r}; must be a whole number from 1 to {most}")
    return int(text)
