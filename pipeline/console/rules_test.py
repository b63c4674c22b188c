"""`dasnet rules test` of an edited site on what the store holds of the last day, in a process of its own."""

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pipeline.console.site_file import SiteFile
from pipeline.errors import ConfigError
from pipeline.redaction import redact

TIMEOUT_S = 120.0
NICENESS = 5
MAX_OUTPUT = 20_000  # characters


async def tested(file: SiteFile, text: str, store: Path) -> str:
    """Return what the command prints for the site's file with another text.  Raise ConfigError where it cannot run."""
    since = (datetime.now(UTC) - timedelta(days=1)).isoformat(timespec="seconds")
    with _beside(file, text) as path:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pipeline", "rules", "test", str(path), str(store), "--since", since),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            preexec_fn=lambda: os.nice(NICENESS) and None,
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
        except TimeoutError:
            return f"not done within {TIMEOUT_S:.0f} s; run dasnet rules test instead"
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return redact(output.decode(errors="replace").replace(str(path), str(file.path)))[:MAX_OUTPUT]


@contextmanager
def _beside(file: SiteFile, text: str) -> Iterator[Path]:
    """Write a text beside the site's file, whose relative paths hold there, as readable as it; remove it at the end."""
    real = file.path.resolve()
    path = real.with_name(f".{real.name}.test.yaml")
    try:
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as written:
            written.write(text)
        yield path
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror})") from None
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)
