"""What goes wrong when a model is built, loaded or run.

ModelError
├── CheckpointError   a checkpoint that cannot be read, or does not fit the network
└── EngineError       an engine that cannot run here, or failed while running
"""


class ModelError(Exception):
    """Says what was wrong, where, and what is allowed."""


class CheckpointError(ModelError):
    pass


class EngineError(ModelError):
    pass
