"""The networks, and how to run them fast.  `build` makes one, `load` reads one with its weights, `Engine` runs it."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model.checkpoint import load
    from model.dasnet import DASNet
    from model.engine.engine import Engine
    from model.registry import build

__all__ = ["DASNet", "Engine", "build", "load"]

_HOMES = {"DASNet": "dasnet", "Engine": "engine.engine", "build": "registry", "load": "checkpoint"}


def __getattr__(name: str) -> Any:
    """Imported when first used: who needs a checkpoint's thresholds alone does not pay for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'model' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"model.{_HOMES[name]}"), name)
