"""`dasnet bench`: a checkpoint in; how fast and how exact each engine runs it on this machine out.

Each candidate is a process of its own.  They are asked in turn, A B C A B C, for one forward on an input that none has
seen, so that whatever else slows the machine slows all of them; one computes at a time.  The reference is the readable
module in eager float32 under the stock allocator (under better ones too); errors are those against it in float64.
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
from pipeline.bench.results import REFERENCES, Entrant, Mask, Report, Sample, describe_checkpoint, machine
from pipeline.bench.worker import Failed, Reply, Task, Unavailable, Worker
from pipeline.checkpoints import checkpoint_path
from pipeline.errors import ConfigError

WARM_UP_ROUNDS = 2  # asked like the others, not counted: buffers and kernels are made in them
COMPARED_INPUTS = 2  # one batch of them for each size, against float64
SEED = 1000
PRECISIONS = ("fp32", "bf16", "fp16")
MAX_BATCH = 1024


@dataclass(frozen=True)
class Candidate:
    """A way to run the network: a row of the table."""

    name: str
    build: str  # "module:function", see bench_worker.Task
    precisions: tuple[str, ...] = ("fp32",)
    arguments: dict[str, str] = field(default_factory=dict)
    packages: tuple[str, ...] = ()  # that must be installed
    allocator: str = "kept"  # see bench_worker.ALLOCATORS; the native engine sets more itself
    always: bool = False  # whatever precisions are asked for
    slow: bool = False  # with --compile only


_WORKER = "pipeline.bench.worker"
EXACT = Candidate("float64", f"{_WORKER}:readable", ("fp64",))
CANDIDATES: tuple[Candidate, ...] = (
    Candidate(REFERENCES["stock"], f"{_WORKER}:readable", allocator="stock", always=True),
    Candidate(REFERENCES["thp"], f"{_WORKER}:readable", allocator="thp", always=True),
    Candidate(REFERENCES["kept"], f"{_WORKER}:readable", allocator="kept", always=True),
    Candidate("native", f"{_WORKER}:engine", ("fp32", "bf16"), {"kind": "native"}, allocator="thp"),
    Candidate("torch", f"{_WORKER}:engine", ("fp32", "bf16"), {"kind": "torch"}),
    Candidate("cuda", f"{_WORKER}:engine", PRECISIONS, {"kind": "cuda", "device": "cuda"}),
    Candidate("onnxruntime", f"{_WORKER}:onnx_runtime", packages=PACKAGES, allocator="stock"),
    Candidate("openvino", f"{_WORKER}:openvino", ("fp32", "bf16"), packages=("openvino", *PACKAGES), allocator="stock"),
    Candidate("inductor", f"{_WORKER}:inductor", ("fp32", "bf16"), slow=True),
)


@dataclass(frozen=True)
class BenchOptions:
    """Lists are written as on the command line; a size is HEIGHTxWIDTH."""

    sizes: str = "256x256,512x512"
    batches: str = "1,4"
    precisions: str = "fp32,bf16,fp16"
    threads: str | None = None  # None: as many as there are usable cores
    rounds: int = 10
    frames: Path | None = None
    json: Path | None = None
    plot: Path | None = None
    compile: bool = False


def run_bench(checkpoint: Path | None, options: BenchOptions) -> int:
    """Returns 1 where a candidate that can be had here failed; the others are measured all the same."""
    path = checkpoint_path(checkpoint)
    loaded = load(path)
    multiple = int(getattr(loaded.network, "multiple", 32))
    plan = Plan.of(options, multiple)
    if options.plot and (options.plot.suffix != ".png" or find_spec("matplotlib") is None):
        raise ConfigError(f"plot {options.plot}: allowed: a path ending in .png, where matplotlib is installed")
    for written in (options.json, options.plot):
        _check_writable(written)
    settings = {**asdict(plan), "allocators": {candidate.name: candidate.allocator for candidate in CANDIDATES}}
    report = Report(machine(), describe_checkpoint(path, loaded.metadata), settings)
    comparable = options.frames is not None or CLIPS.is_dir()
    if not comparable:
        report.remarks.append(f"no masks compared: there is no {CLIPS} here; name recordings with --frames")
    with tempfile.TemporaryDirectory(prefix="dasnet-bench-") as name:
        folder = Path(name)
        frames = save_frames(options.frames or CLIPS, loaded.metadata, folder) if comparable else {}
        report.frames = list(frames)
        with (
            Progress(transient=True, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress,
            Field(report, folder, path, progress) as field_,
        ):
            _measure(plan, report, field_, _Comparisons(plan, frames, folder, multiple))
    return publish(report, options.json, options.plot)


@dataclass(frozen=True)
class Plan:
    """Options, understood."""

    sizes: list[tuple[int, int]]
    batches: list[int]
    precisions: list[str]
    threads: list[int]
    rounds: int
    compile: bool

    @classmethod
    def of(cls, options: BenchOptions, multiple: int) -> Self:
        """Raises ConfigError."""
        cores = len(os.sched_getaffinity(0))
        precisions = options.precisions.split(",")
        if unknown := [name for name in precisions if name not in PRECISIONS]:
            raise ConfigError(f"precision {unknown[0]!r}; allowed: {', '.join(PRECISIONS)}")
        if options.rounds < 1:
            raise ConfigError(f"rounds {options.rounds}; allowed: 1 or more")
        return cls(
            sizes=[_size(text, multiple) for text in options.sizes.split(",")],
            batches=[_number("batch", text, MAX_BATCH) for text in options.batches.split(",")],
            precisions=precisions,
            threads=[_number("threads", text, cores) for text in (options.threads or str(cores)).split(",")],
            rounds=options.rounds,
            compile=options.compile,
        )


class Field:
    """The candidates that run; one that fails leaves it, its reason in the report, and the others go on."""

    def __init__(self, report: Report, folder: Path, checkpoint: Path, progress: Progress) -> None:
        self._report, self._folder, self._checkpoint, self._progress = report, folder, checkpoint, progress
        self._workers: dict[Entrant, Worker] = {}
        self._bar = progress.add_task("", total=None)

    def __iter__(self) -> Iterator[Entrant]:
        return iter(list(self._workers))

    def start(self, candidate: Candidate, precision: str, threads: int, compile_too: bool) -> None:
        """Ready to be asked, or in the report with the reason; what cannot be had is tried once."""
        entrant = Entrant(candidate.name, precision, threads)
        if (candidate.name, precision) in self._report.unavailable:
            return
        self._progress.update(self._bar, description=f"start {entrant}")
        missing = [name for name in candidate.packages if find_spec(name) is None]
        arguments = (str(self._checkpoint), precision, threads, str(self._folder), candidate.allocator)
        try:
            if candidate.slow and not compile_too:
                raise Unavailable("takes minutes to compile; ask for it with --compile")
            if missing:
                raise Unavailable(f"not installed: {', '.join(missing)}")
            if precision == "bf16" and candidate.arguments.get("device") != "cuda" and not has_fast_bf16():
                raise Unavailable("the processor does not compute in bfloat16: a frame would take minutes")
            task = Task(candidate.build, candidate.arguments, *arguments)
            self._workers[entrant] = Worker(task, entrant.slug)
        except Unavailable as reason:
            self._report.unavailable[candidate.name, precision] = str(reason)
        except Failed as reason:
            self._report.failed[entrant] = f"starting: {reason}"

    def expect(self, requests_each: int) -> None:
        self._progress.update(self._bar, total=requests_each * len(self._workers), completed=0)

    def ask(self, entrant: Entrant, during: str, do: str, **request: Any) -> Reply | None:
        """None: it failed."""
        self._progress.update(self._bar, description=f"{during}: {entrant}", advance=1)
        try:
            return self._workers[entrant].ask(do, **request)
        except (Failed, Unavailable) as reason:
            self._report.failed[entrant] = f"{during}: {reason}"
            self._workers.pop(entrant).close()
            return None

    def close(self) -> None:
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()


def _measure(plan: Plan, report: Report, field_: Field, comparisons: "_Comparisons") -> None:
    field_.start(EXACT, "fp64", max(plan.threads), compile_too=False)
    field_.expect(comparisons.count)
    comparisons.save(field_)
    field_.close()
    for threads in plan.threads:
        for candidate in CANDIDATES:
            for precision in candidate.precisions:
                if precision in plan.precisions or candidate.always:
                    field_.start(candidate, precision, threads, plan.compile)
        field_.expect(comparisons.count + len(plan.sizes) * len(plan.batches) * (WARM_UP_ROUNDS + plan.rounds))
        comparisons.compare(field_, report)
        _race(plan, report, field_)
        field_.close()


def _race(plan: Plan, report: Report, field_: Field) -> None:
    """In every round each candidate once, on the round's own input."""
    seed = SEED
    for height, width in plan.sizes:
        for batch in plan.batches:
            for number in range(-WARM_UP_ROUNDS, plan.rounds):
                seed += 1
                for entrant in field_:
                    request = {"height_px": height, "width_px": width, "batch": batch, "seed": seed}
                    answer = field_.ask(entrant, f"{height}x{width}, batch {batch}", "time", **request)
                    if answer is not None and number >= 0:
                        report.samples.append(Sample(entrant, height, width, batch, number, seed, answer["ms"]))


class _Comparisons:
    """The logits and masks of the float64 module, in files, and how far from them the candidates are."""

    def __init__(self, plan: Plan, frames: dict[str, float], folder: Path, multiple: int) -> None:
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
        """Of requests to each candidate."""
        return len(self._requests)

    def save(self, field_: Field) -> None:
        self._ask_all(field_, save=True)

    def compare(self, field_: Field, report: Report) -> None:
        # What float64 could not do (memory) is not compared.
        self._requests = [entry for entry in self._requests if Path(entry[2]["file"]).exists()]
        for entrant, during, request, answer in self._ask_all(field_, save=False):
            if "max_error" in answer:
                report.errors[entrant, (request["height_px"], request["width_px"])] = answer["max_error"]
            elif "both_px" in answer:
                report.masks.append(
                    Mask(entrant, during.removeprefix("mask of "), answer["both_px"], answer["either_px"])
                )

    def _ask_all(self, field_: Field, save: bool) -> list[tuple[Entrant, str, dict[str, Any], Reply]]:
        answers = []
        for entrant in field_:
            for during, do, request in self._requests:
                answer = field_.ask(entrant, during, do, save=save, **request)
                if answer is None:
                    break
                answers.append((entrant, during, request, answer))
        return answers


def _check_writable(path: Path | None) -> None:
    """Before the work, not after it.  Raises ConfigError."""
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("ab").close()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}); allowed: a writable path") from error


def _size(text: str, multiple: int) -> tuple[int, int]:
    height, _, width = text.strip().partition("x")
    if not (height.isdecimal() and width.isdecimal()) or any(
        not int(side) or int(side) % multiple for side in (height, width)
    ):
        raise ConfigError(f"size {text!r}; allowed: HEIGHTxWIDTH, both multiples of {multiple}")
    return int(height), int(width)


def _number(name: str, text: str, most: int) -> int:
    if not text.strip().isdecimal() or not 1 <= int(text) <= most:
        raise ConfigError(f"{name} {text!r}; allowed: whole numbers from 1 to {most}")
    return int(text)
