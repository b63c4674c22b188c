"""The native engine against float64: any size, channels, class count and number of threads; and what it refuses."""

import copy
import ctypes
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.native import needs_native
from support.program import REPOSITORY

from model import DASNet, Engine, build
from model.engine import native
from model.engine.native import NativeBackend, packed_weights
from model.errors import ChoiceError, EngineError
from model.native import library as native_library
from model.native.library import NativeError, open_library, usable_variants

pytestmark = needs_native


@pytest.fixture(scope="module")
def sixteen_lanes(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """As on a processor with AVX-512, for one without; with it, all other tests run sixteen lanes."""
    if "avx512" in usable_variants():
        pytest.skip("the library in use has sixteen lanes here")
    folder = tmp_path_factory.mktemp("lanes")
    (path,) = native_library.build(["avx2"], folder, ["-DDASNET_LANES=16", "-O2"], channels=(64,))
    library = open_library(path)
    assert library.dasnet_lanes() == 16
    return library


# Each takes a compiler a quarter of a minute; the installation for tests builds the last.
OTHER_FORMS = [pytest.param(name, marks=[pytest.mark.slow] * (name != "avx2")) for name in usable_variants()[1:]]


@pytest.fixture(scope="module", params=OTHER_FORMS)
def other_form(request: pytest.FixtureRequest) -> ctypes.CDLL:
    """What this processor could run too, and a lesser one would."""
    (path,) = native_library.build([request.param], channels=(64,))
    return open_library(path)


def network(seed: int, levels: int, classes: int, channels: int = 64) -> DASNet:
    """Random, with norms that do not merely pass on what they get, and turn some channels round."""
    torch.manual_seed(seed)
    made = build("dasnet", size=levels, num_class=classes, start_out_channels=channels).eval()
    for name, parameter in made.named_parameters():
        if ".gn." in name:
            torch.nn.init.normal_(parameter, mean=float(name.endswith("weight")), std=0.3)
            parameter.data[::9] *= -1
    return made


def exact(net: DASNet, batch: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return copy.deepcopy(net).double()(batch.double())


def error(net: DASNet, batch: torch.Tensor, precision: str, threads: int = 2) -> float:
    backend = NativeBackend(net, precision, net.multiple, threads)
    try:
        wanted = exact(net, batch)
        return float((backend.logits(batch) - wanted).abs().max() / max(1.0, wanted.abs().max()))
    finally:
        backend.close()


# Deep maps of every remainder by 4 and by the kernels' rows, odd ones and single pixels among them.
shapes = st.tuples(st.integers(3, 5), st.integers(1, 9), st.integers(1, 9))


@pytest.mark.slow
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=shapes,
    classes=st.integers(1, 8),
    batch=st.integers(1, 2),
    threads=st.integers(1, 3),
    seed=st.integers(0, 99),
)
# Large enough to be written around the caches.
@example(shape=(3, 32, 33), classes=4, batch=1, threads=2, seed=7)
def test_float32_is_as_near_to_float64_as_float32_can_be(
    shape: tuple[int, int, int], classes: int, batch: int, threads: int, seed: int
):
    near_float64(shape, 64, classes, batch, threads, seed)


@pytest.fixture(scope="module")
def narrow() -> None:
    """The libraries for narrow networks, which an installation does not build."""
    native_library.build(usable_variants()[:1], channels=(32, 16))


@pytest.mark.slow
@pytest.mark.usefixtures("narrow")
@settings(max_examples=20, deadline=None)
@given(shape=shapes, channels=st.sampled_from([32, 16]), classes=st.integers(1, 8), seed=st.integers(0, 99))
@example(shape=(3, 32, 33), channels=32, classes=4, seed=7)
@example(shape=(3, 32, 33), channels=16, classes=8, seed=7)
def test_narrow_networks_are_as_near(shape: tuple[int, int, int], channels: int, classes: int, seed: int):
    near_float64(shape, channels, classes, 1, 2, seed)


def near_float64(shape: tuple[int, int, int], channels: int, classes: int, batch: int, threads: int, seed: int) -> None:
    levels, rows, columns = shape
    net = network(seed, levels, classes, channels)
    images = torch.rand(batch, 3, rows << levels, columns << levels)
    assert error(net, images, "fp32", threads) < 2e-5


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_form_that_runs_here_computes_the_same(other_form: ctypes.CDLL, precision: str, monkeypatch: Any):
    net = network(3, 3, 4)
    monkeypatch.setattr(native, "library", lambda _: other_form)
    assert error(net, torch.rand(1, 3, 72, 264), precision) < (2e-5 if precision == "fp32" else 3e-2)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=shapes, classes=st.integers(1, 8), precision=st.sampled_from(["fp32", "bf16"]), seed=st.integers(0, 99))
def test_sixteen_lanes_compute_the_same(
    sixteen_lanes: ctypes.CDLL, shape: tuple[int, int, int], classes: int, precision: str, seed: int
):
    levels, rows, columns = shape
    net = network(seed, levels, classes)
    images = torch.rand(1, 3, rows << levels, columns << levels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "library", lambda _: sixteen_lanes)
        assert error(net, images, precision) < (2e-5 if precision == "fp32" else 0.1)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("other", [None, 0, 1, 2], ids=["grey", "red", "green", "blue"])
def test_a_grey_picture_is_computed_in_one_plane_and_one_pixel_of_colour_in_three(precision: str, other: int | None):
    images = torch.rand(1, 1, 40, 72).repeat(2, 3, 1, 1)
    if other is not None:
        images[1, other, -1, -1] += 0.5
    assert error(network(4, 3, 4), images, precision) < (2e-5 if precision == "fp32" else 3e-2)


@pytest.mark.parametrize("channels", [64, *(pytest.param(each, marks=pytest.mark.slow) for each in (32, 16))])
@pytest.mark.parametrize("size", [(160, 96), (256, 288)])
def test_bfloat16_keeps_the_maps_in_half_the_memory_and_is_near(
    size: tuple[int, int], channels: int, request: pytest.FixtureRequest
):
    if channels != 64:
        request.getfixturevalue("narrow")
    assert 0 < error(network(1, 5, 4, channels), torch.rand(1, 3, *size), "bf16") < 0.1


def test_the_result_does_not_depend_on_threads_nor_on_what_ran_before():
    net = network(5, 5, 4)
    images, others = torch.rand(2, 3, 96, 160), torch.rand(1, 3, 64, 32)
    with Engine(net, device="cpu", kind="native", precision="fp32", threads=1) as one:
        wanted = one.logits(images)
    with Engine(net, device="cpu", kind="native", precision="fp32", threads=3) as three:
        for _ in range(3):
            assert torch.equal(three.logits(images), wanted)
            three.logits(others)
        assert torch.equal(three.logits(images[1:]), wanted[1:])


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_pictures_at_once_are_computed_as_each_alone(threads: int):
    """Of several sizes, from more callers than there is memory for."""
    net = network(6, 4, 4)
    pictures = [torch.rand(1, 3, 16 * (2 + n % 3), 16 * (5 - n % 4)) for n in range(12)]
    with Engine(net, device="cpu", kind="native", precision="fp32", threads=threads) as engine:
        assert engine.max_in_flight == min(threads, 2)
        alone = [engine.logits(picture) for picture in pictures]
        with ThreadPoolExecutor(4) as callers:
            for _ in range(5):
                together = callers.map(engine._backend._logits, pictures)  # past the engine's own, fewer, threads
                assert all(torch.equal(*pair) for pair in zip(together, alone, strict=True))


def test_an_engine_that_is_forgotten_leaves_no_thread_behind():
    def threads() -> set[str]:
        return {path.name for path in Path("/proc/self/task").iterdir()}

    def made() -> Engine:
        return Engine(network(4, 3, 1), device="cpu", kind="native", precision="fp32", threads=4)

    made().close()  # torch has started its own threads by now
    before = threads()
    engine = made()
    assert len(threads() - before) == 3  # the caller is the fourth
    engine.close()
    engine.close()
    assert threads() <= before
    forgotten = made()
    assert len(threads() - before) == 3
    del forgotten
    assert threads() <= before


# Deep maps with odd sides, which are halved upwards and end past their last pixel.
@pytest.mark.slow
@pytest.mark.parametrize("size", [(32, 32), (96, 160), (160, 352), (224, 64), (544, 96)])
def test_the_whole_depth_at_sides_that_cannot_be_halved_so_often(size: tuple[int, int]):
    assert error(network(2, 7, 1), torch.rand(1, 3, *size), "fp32") < 2e-5
    assert error(network(2, 7, 4), torch.rand(1, 3, *size), "bf16") < 0.1


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (lambda: build("dasnet", start_out_channels=24), "3 input channels, 64, 32 or 16 feature channels"),
        (lambda: build("dasnet", num_class=9), "1 to 8 classes only"),
        (lambda: build("thindyunet"), "DAS-Net only, not"),
    ],
)
def test_what_it_cannot_run_is_said(made: object, text: str):
    with pytest.raises(ChoiceError, match=f"engine 'native': .*{text}.*must be torch or reference"):
        Engine(made(), device="cpu", kind="native")  # type: ignore[operator]


def test_wrong_shapes_are_errors_and_the_engine_goes_on():
    with Engine(network(3, 3, 1), device="cpu", kind="native", precision="fp32") as engine:
        for shape in ((1, 3, 12, 16), (1, 3, 16, 4), (1, 1, 16, 16)):
            with pytest.raises(EngineError, match=r"must be|expected"):
                engine.logits(torch.rand(shape))
        assert engine.logits(torch.rand(1, 3, 16, 16)).isfinite().all()
        assert engine.logits(torch.rand(0, 3, 16, 16)).shape == (0, 1, 16, 16)


def test_weights_that_do_not_fit_are_refused():
    library, weights = native_library.library(), packed_weights(network(3, 3, 1))
    for count, levels, classes, text in (
        (weights.size - 1, 3, 1, b"too few"),
        (weights.size, 3, 2, b"too few"),
        (weights.size, 2, 1, b"too many"),
        (weights.size, 3, 0, b"must be"),
        (weights.size, 99, 1, b"must be"),
    ):
        assert not library.dasnet_create(weights.ctypes.data, count, levels, classes, 1, 1, 0)
        assert text in library.dasnet_error()


@pytest.mark.parametrize("variant", ["avx2", "avx512bf16"])
def test_the_sources_compile_without_warnings(variant: str):
    flags = [
        *native_library.FLAGS,
        *native_library.VARIANTS[variant][0],
        "-Wall",
        "-Wextra",
        "-Werror",
        "-fsyntax-only",
    ]
    sources = map(str, native_library.SOURCES.glob("*.cpp"))
    done = subprocess.run(["g++", *flags, *sources], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_stage_times_add_up_to_a_forward_pass():
    net = network(3, 3, 1)
    backend = NativeBackend(net, "fp32", 8, threads=1)
    seconds = backend.time_stages(np.zeros((3, 64, 96), np.float32), rounds=3)
    assert len(seconds) == 3 * 3 + 2
    assert (seconds > 0).all()
    assert backend.peak_macs(0.01) > 1e8
    backend.close()


def test_without_a_compiler_torch_runs_the_network_and_the_reason_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from model.engine.autotune import select_engine

    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(native_library, "LIBRARIES", tmp_path)
    with pytest.raises(NativeError, match="no C\\+\\+ compiler is installed"):
        native_library.build(["avx2"], tmp_path)
    native_library.library.cache_clear()
    try:
        with Engine(network(3, 3, 1), device="cpu", threads=1) as engine:
            assert engine.kind == "torch"
        assert "not built here" in select_engine(network(3, 3, 1), 8, 1).reason
    finally:
        native_library.library.cache_clear()


def test_a_compiler_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(NativeError, match="false failed"):
        native_library.build(["avx2"], tmp_path)
    assert not list(tmp_path.iterdir())


FORM_FLAGS = {
    "8": ["-mavx2", "-mfma"],
    "16": ["-mavx2", "-mfma", "-DDASNET_LANES=16"],
    **{variant: native_library.VARIANTS[variant][0] for variant in native_library.usable_variants()},
}


@pytest.mark.slow
@pytest.mark.parametrize("channels", native_library.CHANNELS)
@pytest.mark.parametrize("flags", FORM_FLAGS.values(), ids=FORM_FLAGS)
def test_no_access_beyond_memory_and_no_undefined_behaviour(tmp_path: Path, flags: list[str], channels: int):
    """Under the address and undefined-behaviour sanitizers, which end the program at the first fault."""
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    sanitized(tmp_path, [*sanitizers, f"-DDASNET_CHANNELS={channels}", *flags])


@pytest.mark.slow
@pytest.mark.parametrize("flags", FORM_FLAGS.values(), ids=FORM_FLAGS)
def test_chips_and_pixels_are_worked_on_within_their_memory(tmp_path: Path, flags: list[str]):
    flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", *flags]
    sanitized(tmp_path, flags, source="pixel_sizes.cpp")


@pytest.mark.slow
def test_pictures_at_once_share_nothing_that_changes(tmp_path: Path):
    """Under the thread sanitizer; each result is that of the picture alone."""
    sanitized(tmp_path, ["-fsanitize=thread", *FORM_FLAGS["avx2"]], "together")


def sanitized(folder: Path, flags: list[str], *arguments: str, source: str = "native_sizes.cpp") -> None:
    """Build a program of `tests/support` and run it."""
    program, path = folder / "sanitized", REPOSITORY / "tests" / "support" / source
    command = ["g++", "-O1", "-g", "-std=c++17", "-Wno-psabi", "-pthread", *flags, str(path), "-o", str(program)]
    subprocess.run(command, check=True)
    done = subprocess.run([str(program), *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "done"


def test_libraries_of_other_sources_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    before = native_library.path_of("avx2").name
    sources = tmp_path / "native"
    sources.mkdir()
    (sources / "engine.cpp").write_text("// another version\n")
    monkeypatch.setattr(native_library, "SOURCES", sources)
    assert native_library.path_of("avx2").name != before
    np.testing.assert_equal(len(native_library.version()), 12)


MEMORY = """
import sys
from pathlib import Path
import torch
from model import Engine, build
def resident_mb(): return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6
with Engine(build("dasnet"), kind=sys.argv[1], precision="fp32", threads=1):
    before_mb = resident_mb()
    maps = [torch.ones(256 << 10) for _ in range(200)]  # 1 MB each
    between = [bytes(1000) for _ in range(200)]
    assert resident_mb() > before_mb + 180
    del maps
    print(resident_mb() - before_mb)
"""


@pytest.mark.slow
def test_free_maps_do_not_stay_with_the_process():
    """With memory that is kept, as for torch, a heap with gaps grows for hours."""
    kept_mb = {}
    for kind in ("native", "torch"):
        ran = subprocess.run([sys.executable, "-c", MEMORY, kind], capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, ran.stderr
        kept_mb[kind] = float(ran.stdout)
    assert kept_mb["native"] < 10 < 180 < kept_mb["torch"]
