"""A candidate of `dasnet bench` in its own process, with its own allocator and threads.

`CandidateProcess` is the client, `main` the server; requests and replies are JSON lines on a socket.  A request names
its input by seed or by file; the reply holds a time in ms, the largest logit error, or mask counts.
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
class FixedMultiple:
    """A forward pass whose input sides must be multiples of `multiple`."""

    forward: Forward
    multiple: int

    def __call__(self, batch: Tensor) -> Tensor:
        """Return the logits of a batch."""
        return self.forward(batch)


Json = dict[str, Any]

ALLOCATORS = {
    "stock": "the default of a Python program",
    "thp": "torch requests huge pages (THP_MEM_ALLOC_ENABLE=1)",
    "kept": "huge pages, and the process keeps freed memory (model.allocator), as under the engine `torch`",
}
TORCH_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp64": torch.float64}
REPLY_TIMEOUT_S = 900.0  # including compilation
EXIT_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Task:
    """Parameters of a candidate's process."""

    build: str  # "module:function" that returns a Forward for (Loaded, Task, **arguments)
    arguments: dict[str, str]
    checkpoint: str
    precision: str
    threads: int
    folder: str  # shared by all processes, for large arrays
    allocator: str  # a key of ALLOCATORS


class Unavailable(Exception):
    """The candidate is not available on this machine."""


class Failed(Exception):
    """The candidate raised an exception, died or did not reply; its process is unusable."""


class CandidateProcess:
    """A candidate's process, which computes only while it handles a request."""

    def __init__(self, task: Task, name: str) -> None:
        """Start the process and wait until it is ready.

        Raises:
            Unavailable: With the reason.
            Failed: With the reason.
        """
        ours, theirs = socket.socketpair()
        ours.settimeout(REPLY_TIMEOUT_S)
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
            self._reply()
        except BaseException:
            self.close()
            raise

    def ask(self, do: str, **request: Any) -> Json:
        """Send a request, and return the reply.

        Raises:
            Unavailable: With the reason; only `close` may be called afterwards.
            Failed: The same.
        """
        try:
            self._socket.sendall(json.dumps({"do": do, **request}).encode() + b"\n")
        except OSError as error:
            raise Failed(self._exit_reason()) from error
        return self._reply()

    def _reply(self) -> Json:
        try:
            line = self._lines.readline()
        except TimeoutError as error:
            raise Failed(f"no reply within {REPLY_TIMEOUT_S:g} s") from error
        except OSError as error:
            raise Failed(self._exit_reason()) from error
        if not line:
            raise Failed(self._exit_reason())
        answer: Json = json.loads(line)
        if "failed" in answer:
            raise Failed(answer["failed"])
        if "unavailable" in answer:
            raise Unavailable(answer["unavailable"])
        return answer

    def _exit_reason(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(EXIT_TIMEOUT_S)
        code = self._process.returncode
        how = f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"
        written = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"the process ended with {how}{': ' + written[-1][:300] if written else ''}"

    def close(self) -> None:
        """Close the socket, on which the process exits; kill it where it does not."""
        self._lines.close()
        self._socket.close()
        try:
            self._process.wait(EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()


# Candidates: each function is a `build` of the table in `pipeline.bench.run`.


def reference(loaded: Loaded, task: Task) -> Forward:
    """Return the reference implementation in eager torch."""
    dtype = TORCH_TYPES[task.precision]
    network = loaded.network.to(dtype)
    return lambda batch: network(batch.to(dtype))


def engine(loaded: Loaded, task: Task, kind: str, device: str = "cpu") -> Forward:
    """Return a `model.Engine` of any kind."""
    return Engine(loaded, device=device, precision=task.precision, kind=kind, threads=task.threads).logits


def inductor(loaded: Loaded, task: Task) -> Forward:
    """Return the exact rewrite with torch.compile, compiled for each input shape."""
    if not isinstance(loaded.network, DASNet):
        raise ChoiceError(f"inductor: network {type(loaded.network).__name__}; must be DAS-Net")
    dtype, network, shapes = TORCH_TYPES[task.precision], FusedDASNet(loaded.network).eval(), [torch.Size()]
    compiled = torch.compile(network, dynamic=False)

    def forward(batch: Tensor) -> Tensor:
        if batch.shape != shapes[-1]:
            torch.compiler.reset()  # beyond eight shapes torch would silently run uncompiled
            shapes.append(batch.shape)
        logits: Tensor = compiled(batch.to(dtype, memory_format=torch.channels_last))
        return logits.float()

    return forward


def exported_onnx(task: Task) -> str:
    """Return the ONNX file, written by the first process that needs it; processes start one after another."""
    path = Path(task.folder) / "model.onnx"
    if not path.exists():
        run_export(Path(task.checkpoint), path, say=lambda _: None)
    return str(path)


def onnx_runtime(loaded: Loaded, task: Task) -> Forward:
    """Return the network in ONNX Runtime."""
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = task.threads
    # Otherwise its threads keep spinning after a run and slow the next candidate.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = runtime.InferenceSession(exported_onnx(task), options, providers=["CPUExecutionProvider"])
    return FixedMultiple(
        lambda batch: torch.from_numpy(session.run(["logits"], {"image": batch.numpy()})[0]),
        multiple_of(loaded.network),
    )


def openvino(loaded: Loaded, task: Task) -> Forward:
    """Return the network in OpenVINO."""
    vino = import_module("openvino")
    core = vino.Core()
    compiled: dict[tuple[int, ...], Any] = {}  # of the newest shape only: dynamic shapes are slower
    if task.precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise ChoiceError("precision 'bf16': not supported by OpenVINO on this CPU")
    hints = {
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[task.precision],
        "INFERENCE_NUM_THREADS": task.threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    path = exported_onnx(task)

    def forward(batch: Tensor) -> Tensor:
        shape = tuple(batch.shape)
        if shape not in compiled:
            compiled.clear()
            model = core.read_model(path)
            model.reshape(list(shape))
            compiled[shape] = core.compile_model(model, "CPU", hints)
        return torch.from_numpy(compiled[shape](batch.numpy())[0])

    return FixedMultiple(forward, multiple_of(loaded.network))


# Requests


def random_batch(request: Json) -> Tensor:
    """Return float32 noise (N, 3, H, W) in 0..1; some CPUs are faster on zeros."""
    generator = torch.Generator().manual_seed(request["seed"])
    return torch.rand(request["batch"], 3, request["height_px"], request["width_px"], generator=generator)


def timed(forward: Forward, request: Json) -> Json:
    """Time one forward pass."""
    batch = random_batch(request)
    start_s = time.perf_counter()
    forward(batch)
    return {"ms": (time.perf_counter() - start_s) * 1e3}


def logits(forward: Forward, request: Json) -> Json:
    """Store the logits (`save`), or return the largest error relative to the stored ones."""
    got = forward(random_batch(request)).double().numpy()
    if request["save"]:
        np.save(request["file"], got)
        return {}
    expected = np.load(request["file"])
    if got.shape != expected.shape or not np.isfinite(got).all():
        raise ValueError(
            f"logits of shape {got.shape}, {np.isfinite(got).mean():.1%} finite; must be {expected.shape}, all finite"
        )
    return {"max_error": float(np.abs(got - expected).max())}


def mask(forward: Forward, request: Json) -> Json:
    """Store the mask of a real frame (`save`), or return its intersection and union with the stored mask.

    The reply is empty where the candidate does not support that frame size.
    """
    frame = np.load(request["frame"])
    height, width = frame.shape[:2]
    image = padded(torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255, request["multiple"]).contiguous()
    multiple = getattr(forward, "multiple", 1)  # by name: as __main__, this module has a second FixedMultiple
    if any(side % multiple for side in image.shape[2:]):
        return {}
    probability = forward(image)[0, :, :height, :width].sigmoid().amax(dim=0)
    got = (probability > request["threshold"]).numpy()
    if request["save"]:
        np.save(request["file"], got)
        return {}
    expected = np.load(request["file"])
    return {"both_px": int((got & expected).sum()), "either_px": int((got | expected).sum())}


REQUESTS: dict[str, Callable[[Forward, Json], Json]] = {"time": timed, "logits": logits, "mask": mask}


def main() -> None:
    """Handle requests until the socket is closed."""
    requests = socket.socket(fileno=int(sys.argv[1])).makefile("rw", encoding="utf-8")
    task = Task(**json.loads(sys.argv[2]))
    torch.set_num_threads(task.threads)
    if task.allocator == "kept":
        keep_memory()

    def answer(content: Json) -> None:
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
    except Exception as error:  # noqa: BLE001 - any exception is the candidate's result
        answer({"failed": f"{type(error).__name__}: {error}"[:500]})


if __name__ == "__main__":
    main()
    os._exit(0)  # skip the slow teardown of torch: nothing is left to save
