"""The documentation agrees with the code (generated pages, charts, paths, links), and needs nothing from outside."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.program import REPOSITORY

DOCS = REPOSITORY / "docs"
PAGES = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "model/weights/README.md")),
    *DOCS.glob("*.md"),
]
FOLDERS = "pipeline|model|training|scripts|tests|deploy|configs|docs"
README_LINES = 120


def test_generated_pages_are_up_to_date():
    script = [sys.executable, REPOSITORY / "scripts" / "make_docs.py", DOCS, "--check"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    result = subprocess.run(script, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_every_configuration_key_is_described():
    rows = re.findall(
        r"^\| `[a-z_.\[\]]+` \|.*\|$", (DOCS / "configuration.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(rows) > 30
    assert not [row for row in rows if row.endswith("|  |")]


def test_charts_are_up_to_date(tmp_path: Path):
    subprocess.run([sys.executable, REPOSITORY / "scripts" / "make_diagrams.py", tmp_path], check=True)
    for chart in tmp_path.iterdir():
        assert chart.read_text() == (DOCS / "images" / chart.name).read_text(), "run `make docs`"


def test_the_readme_is_short():
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()) <= README_LINES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_paths_and_links_lead_somewhere(page: Path):
    text = page.read_text(encoding="utf-8")
    quoted = re.findall(r"`([^`\n]+)`", text)
    paths = [name for name in quoted if re.fullmatch(rf"(?:{FOLDERS})/[\w./-]+", name)]
    assert not [name for name in paths if not (REPOSITORY / name).exists()]
    tests = [name for name in quoted if re.fullmatch(r"test_\w+\.py", name)]
    assert not [name for name in tests if not [*(REPOSITORY / "tests").rglob(name)]]
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert not [link for link in links if link and not (page.parent / link).exists()]


def test_the_site_builds_strictly_and_needs_nothing_from_outside(tmp_path: Path):
    pytest.importorskip("material", reason='needs the documentation\'s packages: pip install "dasnet[docs]"')
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(build, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for page in tmp_path.glob("*.html"):
        parts = re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", page.read_text(encoding="utf-8"))
        assert not [part for part in parts if re.search(r"""(?:src|href)=["']?(?:https?:)?//""", part)]
