"""The libraries of others in the console are the files that were reviewed, with their licences."""

import hashlib
from pathlib import Path

import pipeline.console

VENDOR = Path(pipeline.console.__file__).parent / "static" / "vendor"


def test_every_file_has_the_hash_that_is_written_down() -> None:
    written = dict(line.split("  ")[::-1] for line in (VENDOR / "SHA256SUMS").read_text().splitlines())
    paths = [*VENDOR.glob("*.js"), *VENDOR.glob("*.css")]
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    assert files == written
    listed = (VENDOR / "README.md").read_text()
    assert all(f"`{name}`" in listed for name in [*files, "leaflet.LICENSE", "protomaps.LICENSE"])
    assert all((VENDOR / f"{name}.LICENSE").stat().st_size > 1000 for name in ("leaflet", "protomaps"))
