"""What all tests share; one marked `alone` is judged against the clock and wants the machine to itself."""

import os
import signal
from pathlib import Path

import pytest

from pipeline import redaction

# Two processes of tests with as many threads as cores each would wait for one another at every loop.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Read when Triton is imported, which torch does whenever it likes: without a GPU its kernels are interpreted.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# A shell's background job, as continuous integration may be, ignores Ctrl-C, and so would every program under test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def secrets_of_this_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret that one test makes known is an ordinary word in the next."""
    monkeypatch.setattr(redaction, "_known", set(redaction._known))
    monkeypatch.setattr(redaction, "_redactor", redaction._redactor)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that run the program: a long one at the end would leave the other processes idle."""
    live = {item.path for item in items if item.get_closest_marker("live")}
    items.sort(key=lambda item: item.path not in live)
