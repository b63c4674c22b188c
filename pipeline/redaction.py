"""Remove secrets from text for the log, the support bundle, and everything else that people read.

A known secret is replaced wherever it occurs, including its URL-encoded, JSON, HTML and Python forms.  Anything that
looks like the user and password of an address is replaced whether known or not.  `remember` registers the secrets of
this process; `redact` replaces them.
"""

import html
import json
import re
from collections.abc import Iterable
from functools import lru_cache, partial
from typing import Any
from urllib.parse import quote, unquote

HIDDEN = "***"
SECRET_KEYS = ("password", "passphrase", "secret", "token", "key", "credential", "auth", "header")
SHORTEST = 4  # characters; shorter secrets occur in ordinary words, and are replaced in addresses only
_SECRET_WORD = "pass|pwd|token|secret|key|auth"  # noqa: S105 - how cameras name one in a query or path
SECRET_IN_PATH = re.compile(rf"(?:{_SECRET_WORD})\w*?[=:/]", re.IGNORECASE)  # followed by its value
TOKEN = re.compile(r"(?=[A-Za-z+~]*[0-9])(?=[0-9+~]*[A-Za-z])[A-Za-z0-9+~]{12,}")  # letters mixed with digits
SHORTEST_TOKEN = 8  # characters
_WORD_OR_HOST = re.compile(r"[a-z_-]+|[A-Z][a-z]+|[a-z0-9-]+(?:\.[a-z0-9-]+)+|\[[0-9A-Fa-f:]+\]")
_CREDENTIALS = re.compile(
    r"(?<=://)[^\s/@'\"<>]*@|\b(?P<scheme>(?:rtsps?|https?):[/\\]*|(?:file|sdp|v4l2|demo):[^\s'\"<>:@]*:)[^\s'\"<>]*@"
)


class Redactor:
    """Replaces a set of secrets in text."""

    def __init__(self, secrets: Iterable[str]) -> None:
        spellings = {spelling for secret in secrets for spelling in _spellings(secret) if len(spelling) >= SHORTEST}
        self._longest_first = sorted(spellings, key=lambda spelling: (-len(spelling), spelling))

    def __call__(self, text: str) -> str:
        """Return the text with every secret replaced."""
        for spelling in self._longest_first:  # one regular expression of hundreds would compile for seconds
            text = text.replace(spelling, HIDDEN)
        return _CREDENTIALS.sub(lambda found: f"{found['scheme'] or ''}{HIDDEN}@", text)

    def every(self, value: Any) -> Any:
        """Return the value with every string in it redacted, before strings are quoted, wrapped or truncated."""
        if isinstance(value, dict):
            return {self.every(name): self.every(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.every(item) for item in value]
        return self(value) if isinstance(value, str) else value


_known: set[str] = set()
_redactor = Redactor(())


def remember(secrets: Iterable[str]) -> None:
    """Add secrets to those that `redact` replaces in this process."""
    global _redactor
    _known.update(secrets)
    _redactor = Redactor(_known)


def redact(text: str) -> str:
    """Return the text without this process's secrets."""
    return _redactor(text)


def redact_every(value: Any) -> Any:
    """Return the value with every string in it redacted."""
    return _redactor.every(value)


@lru_cache(4096)
def _spellings(secret: str) -> set[str]:
    quoted = {partial(quote, safe=safe, errors="surrogateescape")(secret) for safe in ("", "/", "!$&'()*+,;=", ":")}
    written = {secret, secret.strip(), unquote(secret), *quoted, *(text.lower() for text in quoted)}
    forms = (json.dumps, partial(json.dumps, ensure_ascii=False), repr)
    for _ in range(2):  # strings may be quoted twice
        written |= {form(text)[1:-1] for text in written for form in forms}
    return written | {html.escape(text) for text in written} | {text.replace("'", "''") for text in written}


def is_secret_key(name: str) -> bool:
    """Return whether the value of a configuration's key of that name is not shown."""
    return any(word in name.lower() for word in SECRET_KEYS)


def secrets_of_service(address: str) -> set[str]:
    """Return what may be a token in the address of a service, given without its scheme: neither a word nor a host."""
    parts = {part for text in (address, unquote(address)) for part in re.split(r"[/?&=@:;,#]", text)}
    return {part for part in parts if len(part) >= SHORTEST_TOKEN and not _WORD_OR_HOST.fullmatch(part)}


def userinfo_in(rest: str) -> str:
    """Return the `user:password` found after the scheme of a local address, or an empty string."""
    userinfo = rest.lstrip("/\\").rpartition("@")[0]
    return userinfo if ":" in userinfo else ""


def secrets_of(uri: str) -> set[str]:
    """Return the password of an address in every form, and the values that its path or query names as secret."""
    _, colon, rest = uri.partition(":")
    if not colon:
        return set()
    rest = rest.lstrip("/\\")
    userinfo, _, place = rest.rpartition("@")
    found = {userinfo.partition(":")[2], rest.partition("?")[2].rpartition("@")[0]} if ":" in userinfo else set()
    for text in (place, rest):
        for match in SECRET_IN_PATH.finditer(text):
            value = text[match.end() :]
            found |= {value, *(re.split(separators, value)[0] for separators in ("[&#]", "[&?#/]", "[&?#/_;]"))}
    found |= set(TOKEN.findall(place.partition("/")[2]))
    return (found | {unquote(secret) for secret in found}) - {""}
