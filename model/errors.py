"""Errors raised when a model is built, loaded or run, and the exit code of each.

ModelError            failed (exit code 1)
├── CheckpointError   a checkpoint that cannot be read, or does not fit the network
└── EngineError       an engine that failed while running
    ├── ChoiceError   an engine, device or precision that is not available here (exit code 2)
    └── EngineLost    the device cannot be used by this process any more
"""


class ModelError(Exception):
    """Base of the errors of this package; the message gives the place, the value and what is expected."""

    exit_code = 1


class CheckpointError(ModelError):
    """A checkpoint that cannot be read or does not fit the network."""


class EngineError(ModelError):
    """An engine that failed while running."""


class ChoiceError(EngineError):
    """An engine, device or precision that is not available here."""

    exit_code = 2


class EngineLost(EngineError):
    """The device cannot be used by this process any more: a new process must be started."""
