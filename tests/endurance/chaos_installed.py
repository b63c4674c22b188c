"""Which servers and sinks `endurance.chaos` can use here."""

import importlib.util


def has_mail() -> bool:
    return _installed("apprise", "aiosmtpd")


def has_tak() -> bool:
    return _installed("taky", "pytak")


def has_middleware() -> bool:
    return _installed("sapient_msg_pydantic")


def _installed(*modules: str) -> bool:
    return all(importlib.util.find_spec(module) is not None for module in modules)
