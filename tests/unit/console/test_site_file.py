"""The site's file is replaced at once or not at all, and never over what somebody else wrote."""

import os
import stat
from pathlib import Path

import pytest

from pipeline.console.site_file import ChangedError, SiteFile
from pipeline.errors import ConfigError


def test_a_file_keeps_its_permissions_and_its_text_before(tmp_path: Path) -> None:
    (real := tmp_path / "real.yaml").write_text("a: 1\n")
    real.chmod(0o640)
    (link := tmp_path / "site.yaml").symlink_to(real)
    file = SiteFile.read(link)
    again = file.write("a: 2\n")
    assert link.is_symlink() and real.read_text() == "a: 2\n"
    assert (tmp_path / "real.yaml.bak").read_text() == "a: 1\n"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert SiteFile.read(link).version == again.version
    with pytest.raises(ChangedError, match="changed meanwhile"):
        file.write("a: 3\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["real.yaml", "real.yaml.bak", "site.yaml"]


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="was not read from a file"):
        SiteFile.read(None)
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "absent.yaml"):
        with pytest.raises(ConfigError, match="must be a file"):
            SiteFile.read(path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="must be UTF-8"):
        SiteFile.read(tmp_path / "binary")


def test_a_folder_that_cannot_be_written_leaves_the_file(tmp_path: Path) -> None:
    (path := tmp_path / "site.yaml").write_text("a: 1\n")
    (tmp_path / "site.yaml.bak").mkdir()
    (tmp_path / "site.yaml.bak" / "in_use").touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        SiteFile.read(path).write("a: 2\n")
    assert path.read_text() == "a: 1\n" and not list(tmp_path.glob("*.new"))
