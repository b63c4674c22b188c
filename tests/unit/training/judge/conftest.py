"""Chips of the repository's own clips, collected once."""

from pathlib import Path

import pytest
from support.program import REPOSITORY

from training.judge.chip_set import ChipSet
from training.judge.chips import ChipSettings, collect_chips, open_sets


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def chip_sets(cache: Path) -> dict[str, ChipSet]:
    sets = open_sets([str(REPOSITORY / "tests" / "data")], ["train"], ["val"])
    return {name: collect_chips(recordings, ChipSettings(), cache) for name, recordings in sets.items()}
