"""One candidate of `dasnet bench` in a process of its own, so that each has its own allocator and its own threads.

`Worker` is the end that asks, `main` the one that computes; requests and answers are JSON, one a line, on a socket.  A
request names its input by seed or by file, and leaves a time in ms, the largest logit error, or mask counts.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from model.allocator import keep_memory
from model.checkpoint import Loaded, load
from model.dasnet import DASNet
from model.engine.backend import padded
from model.engine.engine import Engine
from model.errors import ChoiceError
from model.export.onnx import multiple_of, run_export
from model.fused import FusedDASNet

Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class OfMultiples:
    """A forward that takes sides of these multiples only, where the engines take finer ones."""

    forward: Forward
    multiple: int

    def __call__(self, batch: Tensor) -> Tensor:
        return self.forward(batch)


Reply = dict[str, Any]

ALLOCATORS = {
    "stock": "as a plain Python program has it",
    "thp": "torch asks for huge pages (THP_MEM_ALLOC_ENABLE=1)",
    "kept": "huge pages, and freed memory stays with the process (model.allocator), as under the engine `torch`",
}
TORCH_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp64": torch.float64}
ANSWER_WITHIN_S = 900.0  # compiling included
END_WITHIN_S = 10.0


@dataclass(frozen=True)
class Task:
    """What a worker is started with."""

    build: str  # "module:function" that makes a Forward of (Loaded, Task, **arguments)
    arguments: dict[str, str]
    checkpoint: str
    precision: str
    threads: int
    folder: str  # shared by all workers, for large arrays
    allocator: str  # a key of ALLOCATORS


class Unavailable(Exception):
    """The candidate cannot be had on this machine."""


class Failed(Exception):
    """The candidate raised, died or did not answer; the process is of no more use."""


class Worker:
    """Started and ready, or Unavailable or Failed with the reason.  Computes only while it is asked."""

    def __init__(self, task: Task, name: str) -> None:
        ours, theirs = socket.socketpair()
        ours.settimeout(ANSWER_WITHIN_S)
        self._socket, self._lines = ours, ours.makefile("r", encoding="utf-8")
        self._log = Path(task.folder) / f"{name}.log"
        environment = {key: value for key, value in os.environ.items() if key != "THP_MEM_ALLOC_ENABLE"}
        environment["OMP_NUM_THREADS"] = str(task.threads)
        if task.allocator != "stock":
            environment["THP_MEM_ALLOC_ENABLE"] = "1"
        command = [sys.executable, "-m", "pipeline.bench.worker", str(theirs.fileno()), json.dumps(asdict(task))]
        with theirs, self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, env=environment, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            self._answer()
        except BaseException:
            self.close()
            raise

    def ask(self, do: str, **request: Any) -> Reply:
        """Raises Failed or Unavailable, after which it is only closed."""
        try:
            self._socket.sendall(json.dumps({"do": do, **request}).encode() + b"\n")
        except OSError as error:
            raise Failed(self._last_words()) from error
        return self._answer()

    def _answer(self) -> Reply:
        try:
            line = self._lines.readline()
        except TimeoutError as error:
            raise Failed(f"no answer within {ANSWER_WITHIN_S:g} s") from error
        except OSError as error:
            raise Failed(self._last_words()) from error
        if not line:
            raise Failed(self._last_words())
        answer: Reply = json.loads(line)
        if "failed" in answer:
            raise Failed(answer["failed"])
        if "unavailable" in answer:
            raise Unavailable(answer["unavailable"])
        return answer

    def _last_words(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(END_WITHIN_S)
        code = self._process.returncode
        how = f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"
        written = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"the process ended with {how}{': ' + written[-1][:300] if written else ''}"

    def close(self) -> None:
        """Its end of the socket is closed, on which it ends by itself."""
        self._lines.close()
        self._socket.close()
        try:
            self._process.wait(END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()


# What a candidate is made of: each a `build` of the table in `pipeline.bench.run`.


def readable(loaded: Loaded, task: Task) -> Forward:
    """The readable module in plain eager torch, in the layout in which batches come."""
    dtype = TORCH_TYPES[task.precision]
    network = loaded.network.to(dtype)
    return lambda batch: network(batch.to(dtype))


def engine(loaded: Loaded, task: Task, kind: str, device: str = "cpu") -> Forward:
    """Any kind of `model.Engine`."""
    return Engine(loaded, device=device, precision=task.precision, kind=kind, threads=task.threads).logits


def inductor(loaded: Loaded, task: Task) -> Forward:
    """The exact rewrite through torch.compile, compiled for each shape."""
    if not isinstance(loaded.network, DASNet):
        raise ChoiceError(f"the rewrite is of DAS-Net only, not of {type(loaded.network).__name__}")
    dtype, network, shapes = TORCH_TYPES[task.precision], FusedDASNet(loaded.network).eval(), [torch.Size()]
    compiled = torch.compile(network, dynamic=False)

    def forward(batch: Tensor) -> Tensor:
        if batch.shape != shapes[-1]:
            torch.compiler.reset()  # after eight shapes it would run uncompiled without a word
            shapes.append(batch.shape)
        logits: Tensor = compiled(batch.to(dtype, memory_format=torch.channels_last))
        return logits.float()

    return forward


def onnx_file(task: Task) -> str:
    """Written by the first worker that needs it; workers start one after another."""
    path = Path(task.folder) / "model.onnx"
    if not path.exists():
        run_export(Path(task.checkpoint), path, say=lambda _: None)
    return str(path)


def onnx_runtime(loaded: Loaded, task: Task) -> Forward:
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = task.threads
    # Its threads go on spinning after a run, in the time of the next candidate.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = runtime.InferenceSession(onnx_file(task), options, providers=["CPUExecutionProvider"])
    return OfMultiples(
        lambda batch: torch.from_numpy(session.run(["logits"], {"image": batch.numpy()})[0]),
        multiple_of(loaded.network),
    )


def openvino(loaded: Loaded, task: Task) -> Forward:
    vino = import_module("openvino")
    core = vino.Core()
    compiled: dict[tuple[int, ...], Any] = {}  # of the newest shape only: a free shape is slower
    if task.precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise ChoiceError("precision 'bf16': OpenVINO does not compute in it on this processor")
    hints = {
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[task.precision],
        "INFERENCE_NUM_THREADS": task.threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    path = onnx_file(task)

    def forward(batch: Tensor) -> Tensor:
        shape = tuple(batch.shape)
        if shape not in compiled:
            compiled.clear()
            model = core.read_model(path)
            model.reshape(list(shape))
            compiled[shape] = core.compile_model(model, "CPU", hints)
        return torch.from_numpy(compiled[shape](batch.numpy())[0])

    return OfMultiples(forward, multiple_of(loaded.network))


# Requests


def random_batch(request: Reply) -> Tensor:
    """float32 (N, 3, H, W) in 0..1: noise, never zeros, on which some processors are faster."""
    generator = torch.Generator().manual_seed(request["seed"])
    return torch.rand(request["batch"], 3, request["height_px"], request["width_px"], generator=generator)


def timed(forward: Forward, request: Reply) -> Reply:
    batch = random_batch(request)
    start_s = time.perf_counter()
    forward(batch)
    return {"ms": (time.perf_counter() - start_s) * 1e3}


def logits(forward: Forward, request: Reply) -> Reply:
    """`save` them to the file, or the largest error against those in it."""
    got = forward(random_batch(request)).double().numpy()
    if request["save"]:
        np.save(request["file"], got)
        return {}
    expected = np.load(request["file"])
    if got.shape != expected.shape or not np.isfinite(got).all():
        raise ValueError(
            f"logits of {got.shape}, {np.isfinite(got).mean():.1%} finite; allowed: finite {expected.shape}"
        )
    return {"max_error": float(np.abs(got - expected).max())}


def mask(forward: Forward, request: Reply) -> Reply:
    """Of a real frame: `save` it to the file, or how many pixels are in both, and in either, of it and the file's.

    Nothing where the candidate does not take frames of that size.
    """
    frame = np.load(request["frame"])
    height, width = frame.shape[:2]
    image = padded(torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255, request["multiple"]).contiguous()
    multiple = getattr(forward, "multiple", 1)  # by name: run as a program, this file has a second OfMultiples
    if any(side % multiple for side in image.shape[2:]):
        return {}
    probability = forward(image)[0, :, :height, :width].sigmoid().amax(dim=0)
    got = (probability > request["threshold"]).numpy()
    if request["save"]:
        np.save(request["file"], got)
        return {}
    expected = np.load(request["file"])
    return {"both_px": int((got & expected).sum()), "either_px": int((got | expected).sum())}


REQUESTS: dict[str, Callable[[Forward, Reply], Reply]] = {"time": timed, "logits": logits, "mask": mask}


def main() -> None:
    requests = socket.socket(fileno=int(sys.argv[1])).makefile("rw", encoding="utf-8")
    task = Task(**json.loads(sys.argv[2]))
    torch.set_num_threads(task.threads)
    if task.allocator == "kept":
        keep_memory()

    def answer(content: Reply) -> None:
        requests.write(json.dumps(content) + "\n")
        requests.flush()

    try:
        module, _, function = task.build.partition(":")
        forward = getattr(import_module(module), function)(load(task.checkpoint), task, **task.arguments)
        answer({"ready": True})
        for line in requests:
            request = json.loads(line)
            with torch.inference_mode():
                answer(REQUESTS[request["do"]](forward, request))
    except (ChoiceError, ImportError) as error:
        answer({"unavailable": str(error)})
    except Exception as error:  # noqa: BLE001  whatever a candidate raises is its result
        answer({"failed": f"{type(error).__name__}: {error}"[:500]})


if __name__ == "__main__":
    main()
    os._exit(0)  # nothing is left to save, and the next candidate need not wait for torch to be taken down
