"""The networks and their engines: `build` makes a network, `load` reads a checkpoint, `Engine` runs inference."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model.checkpoint import load
    from model.dasnet import DASNet
    from model.engine.engine import Engine
    from model.registry import build

__all__ = ["DASNet", "Engine", "build", "load"]

_MODULES = {"DASNet": "dasnet", "Engine": "engine.engine", "build": "registry", "load": "checkpoint"}


def __getattr__(name: str) -> Any:
    """Import a name on first use, so that reading a checkpoint's thresholds does not import torch."""
    if name not in _MODULES:
        raise AttributeError(f"module 'model' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"model.{_MODULES[name]}"), name)
