"""Texts in, the same without secrets out: for the log, the support bundle, and whatever else a person sees.

A secret is replaced wherever it stands, also as it is written in an address, in JSON or in Python; and whatever stands
between `://` and `@` in an address is replaced whether it is known or not.
"""

import json
import re
from collections.abc import Iterable
from functools import partial
from urllib.parse import parse_qsl, quote, unquote, urlsplit

HIDDEN = "***"
SHORTEST = 4  # characters; what is shorter is found in innocent words, and is hidden in addresses alone
_CREDENTIALS = re.compile(r"(?<=://)[^\s/@'\"]*@")
_SECRET_KEY = re.compile("pass|pwd|token|secret|key|auth", re.IGNORECASE)  # of a query, as some cameras take them


class Redactor:
    def __init__(self, secrets: Iterable[str]) -> None:
        spellings = {spelling for secret in secrets for spelling in _spellings(secret) if len(spelling) >= SHORTEST}
        longest_first = sorted(spellings, key=lambda spelling: (-len(spelling), spelling))
        self._secrets = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def __call__(self, text: str) -> str:
        if self._secrets is not None:
            text = self._secrets.sub(HIDDEN, text)
        return _CREDENTIALS.sub(f"{HIDDEN}@", text)


def _spellings(secret: str) -> set[str]:
    written = {secret, secret.strip(), unquote(secret), quote(secret, safe=""), quote(secret)}
    quoted = (json.dumps, partial(json.dumps, ensure_ascii=False), repr)
    return written | {form(text)[1:-1] for text in written for form in quoted}


def secrets_of(uri: str) -> set[str]:
    """The password of an address, and what its query calls one."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return set()
    credentials, _, place = rest.rpartition("@")
    query = urlsplit(f"{scheme}://{place}").query
    found = {value for name, value in parse_qsl(query) if _SECRET_KEY.search(name)}
    return (found | {credentials.partition(":")[2]}) - {""}
