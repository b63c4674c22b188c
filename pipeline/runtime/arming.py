"""Whether a site is armed: rules with `needs_arming` apply only then.

While it is disarmed, the run folder holds the file `disarmed`, also across restarts; a folder that was lost, or cannot
be read, is that of an armed site.
"""

import time
from contextlib import suppress
from pathlib import Path

from pipeline.errors import DasnetError, StoreError
from pipeline.runtime.reload import run_folder_of
from pipeline.store.actions import ActionKind, Actor, record
from pipeline.store.folders import sync_folder

FILE = "disarmed"


def is_armed(run_dir: Path) -> bool:
    """Return whether the site of a run folder is armed."""
    return not (run_dir / FILE).is_file()


def set_armed(run_dir: Path, *, armed: bool) -> None:
    """Arm or disarm the site of a run folder; its track worker sees it at once.  Raise DasnetError."""
    path = run_dir / FILE
    try:
        if armed:
            path.unlink(missing_ok=True)
        else:
            run_dir.mkdir(parents=True, exist_ok=True)
            path.touch()
        if run_dir.is_dir():
            sync_folder(run_dir)
    except OSError as error:
        raise DasnetError(f"{path}: cannot be changed: {error.strerror}") from None


def set_armed_site(config_path: Path, *, armed: bool, by: Actor) -> str:
    """Arm or disarm the site of a configuration file, whether it runs or not; return what that means.

    Raise ConfigError for a file that names no run folder, DasnetError where the folder cannot be written.
    """
    run_dir, config, fault = run_folder_of(config_path.absolute())
    if fault is not None and not (
        config_path.is_file() and run_dir.is_dir()
    ):  # otherwise it may refer to secrets that only the program has
        raise fault
    set_armed(run_dir, armed=armed)
    if config is not None and config.store_path.exists():
        with suppress(StoreError):  # nobody is kept from arming
            record(config.store_path, by, ActionKind.ARM if armed else ActionKind.DISARM, time.time_ns())
    state = f"{run_dir}: {'armed' if armed else 'disarmed'}"
    if config is not None and not config.has_arming:
        return f"{state}; no rule has needs_arming, so this changes nothing"
    return state
