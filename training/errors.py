"""What goes wrong before a run can begin."""


class ConfigError(Exception):
    """Names the bad key, its value and what is allowed."""
