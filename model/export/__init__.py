"""Export of checkpoints to other runtimes."""
