"""The identity holds at every read, also while another process writes, and after it was killed."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import StoreError, WireError
from pipeline.store import ledger
from pipeline.store.ledger import Ledger
from pipeline.types import Cause

WRITER = """
import sys
from pathlib import Path
from pipeline.store.ledger import Ledger
from pipeline.types import Cause
account = Ledger(Path(sys.argv[1]), credits=2)
print("ready", flush=True)
while True:
    account.sent(); account.sent(); account.segmented(); account.dropped(Cause.OVERLOAD, 3); account.failed()
"""


def test_every_read_balances_while_another_process_writes_and_after_it_was_killed(tmp_path: Path):
    path = tmp_path / "cam.ledger"
    with subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout is not None and writer.stdout.readline() == b"ready\n"
            accounts = [ledger.read(path) for _ in range(3000)]
        finally:
            writer.send_signal(signal.SIGKILL)
    assert all(account.balanced for account in accounts)
    assert accounts[-1].captured > accounts[0].captured
    dead = ledger.read(path)
    with Ledger(path, credits=1) as successor:
        account = ledger.read(path)
        assert account.balanced and account.in_flight == 0 and account.credits == 1
        assert account.captured == dead.captured
        assert account.failed[Cause.FAILED] == dead.failed[Cause.FAILED] + dead.in_flight
        successor.blind(Cause.OFFLINE, 5)
    assert ledger.read(path).blind_ns[Cause.OFFLINE] == 5


def test_a_writer_killed_during_a_write_leaves_a_ledger_that_balances(tmp_path: Path):
    path = tmp_path / "cam.ledger"
    with Ledger(path, credits=1) as account:
        account.sent()
    content = bytearray(path.read_bytes())
    content[8:16] = (int.from_bytes(content[8:16], "little") + 1).to_bytes(8, "little")  # odd: during a write
    path.write_bytes(content)
    assert ledger.read(path).balanced and ledger.read(path).failed[Cause.FAILED] == 1
    Ledger(path, credits=1).close()
    assert ledger.read(path).balanced


def test_a_ledger_has_one_writer(tmp_path: Path):
    path = tmp_path / "cam.ledger"
    with subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout is not None and writer.stdout.readline() == b"ready\n"
            with pytest.raises(StoreError, match="locked by another process"):
                Ledger(path, credits=1)
        finally:
            writer.kill()
    with Ledger(path, credits=1), pytest.raises(WireError, match="locked by another process"):
        ledger.LedgerCopies().write(path, ledger.array("Q", [0] * len(ledger._FIELDS)).tobytes())
    Ledger(path, credits=1).close()  # closed, it is free


def test_another_file_is_refused(tmp_path: Path):
    path = tmp_path / "cam.ledger"
    path.write_bytes(b"x" * ledger.SIZE_BYTES)
    with pytest.raises(StoreError, match="not a ledger of this version"):
        ledger.read(path)
