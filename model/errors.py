"""What goes wrong when a model is built, loaded or run, and the exit code of each.

ModelError            failed (exit code 1)
├── CheckpointError   a checkpoint that cannot be read, or does not fit the network
└── EngineError       an engine that failed while running
    ├── ChoiceError   an engine, device or precision that cannot be had here (exit code 2)
    └── EngineLost    the device is gone for this process
"""


class ModelError(Exception):
    """Says what was wrong, where, and what is allowed."""

    exit_code = 1


class CheckpointError(ModelError):
    pass


class EngineError(ModelError):
    pass


class ChoiceError(EngineError):
    exit_code = 2


class EngineLost(EngineError):
    """The device is gone for this process: a new one must be started."""
