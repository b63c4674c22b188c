"""A store whose events are delivered."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.store.store import Store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with Store(path) as store:
        yield store
