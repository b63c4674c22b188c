"""The networks, and how to run them fast.  `build` makes one, `load` reads one with its weights, `Engine` runs it."""

from model.checkpoint import load
from model.dasnet import DASNet
from model.engine import Engine
from model.registry import build

__all__ = ["DASNet", "Engine", "build", "load"]
