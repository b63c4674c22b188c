"""Camera addresses: parsed as FFmpeg parses them, validated, expanded, and redacted for display.

No message quotes an address: it may have come from a secret, and a mistyped one may hold its password anywhere.
"""

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from pipeline.redaction import HIDDEN, SECRET_IN_PATH, TOKEN, userinfo_in

NETWORK_SCHEMES = ("rtsp", "rtsps", "http", "https")
LOCAL_OPTIONS: dict[str, tuple[str, ...]] = {  # sources on this machine, with the options allowed after '?'
    "sdp": (),
    "file": (),
    "v4l2": ("format", "size", "fps"),
    "demo": ("seed", "fps", "look", "first", "stream"),
}
SHOWN_HOSTS = ("http", "https", "mqtt", "mqtts")  # schemes of services
SCHEMES = (*NETWORK_SCHEMES, *LOCAL_OPTIONS)
MAX_RTSP_USERINFO_BYTES = 127  # FFmpeg truncates longer ones
REFERENCE = re.compile(r"\$\{([^}]*)\}")

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,19}")
_AUTHORITY = re.compile(r"[^/?#]*")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+(?:%\w+)?\]|[\w.\U000F0000-\U000FFFFD-]+)(?::(\d{1,5}))?")  # or a placeholder
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SUB_DELIMITERS = "!$&'()*+,;="  # RFC 3986 allows them in user and password
_FIRST_PLACEHOLDER = 0xF0000  # private use area; replaces a reference while an address is parsed
_ENCODE = (
    "/ ? # @ and % in a user or password must be percent-encoded (%2F %3F %23 %40 %25), or come from ${NAME} or "
    "${file:PATH}, where they are written as they are"
)


class NetworkAddress(NamedTuple):
    """The parts of a network address."""

    userinfo: str
    host: str
    port: str
    path: str
    query: str  # including any fragment

    @property
    def netloc(self) -> str:
        """Host, and port where there is one."""
        return f"{self.host}:{self.port}" if self.port else self.host

    @property
    def is_ambiguous(self) -> bool:
        """Whether the parsed host may be the beginning of a password, as in `user:1/2@host`."""
        if _is_ip(self.host):
            return False
        before, at, _ = self.query.partition("@")
        is_query = "=" in before and bool(self.userinfo or not self.port)  # ?NAME=VALUE
        return "@" in self.path or (bool(at) and not is_query)


def network_address(uri: str) -> NetworkAddress | None:
    """Return the parts of `SCHEME://USER:PASSWORD@HOST:PORT/PATH`, or None where it does not have that form."""
    _, separator, rest = uri.partition("://")
    authority = _AUTHORITY.match(rest)
    if not separator or authority is None:
        return None
    userinfo, _, netloc = authority[0].rpartition("@")
    host = _HOST.fullmatch(netloc)
    if host is None or int(host[2] or 0) > 65535:
        return None
    path = re.match(r"[^?#]*", rest[authority.end() :])
    assert path is not None
    return NetworkAddress(userinfo, host[1], host[2] or "", path[0], rest[authority.end() + path.end() :])


def uri_fault(uri: str) -> str | None:
    """Return the fault of a camera address and what is expected, without quoting it, or None where it is valid."""
    scheme, _, rest = uri.partition(":")
    if scheme not in SCHEMES:
        return f"unknown scheme; must be one of {', '.join(f'{name}:' for name in SCHEMES)}"
    if _CONTROL.search(uri):
        return "must not hold control characters such as line breaks"
    if scheme not in NETWORK_SCHEMES:
        return _local_fault(scheme, rest)
    address = network_address(uri)
    if address is None:
        return f"must be {scheme}://HOST/PATH, or with USER:PASSWORD@ before the host; {_ENCODE}"
    if address.is_ambiguous:
        return f"host and password cannot be distinguished; {_ENCODE}; @ in a path must be written %40"
    if scheme.startswith("rtsp") and len(_bytes(address.userinfo)) > MAX_RTSP_USERINFO_BYTES:
        return f"user and password, percent-encoded, must have at most {MAX_RTSP_USERINFO_BYTES} bytes"
    return None


def _local_fault(scheme: str, rest: str) -> str | None:
    path, question, query = rest.partition("?")
    names_user = "/" not in userinfo_in(rest).partition(":")[0]
    if userinfo_in(rest) and names_user and not path.removeprefix("//").startswith("/"):
        return f"must be a path on this machine without user and password, as in {scheme}:PATH"
    if question and LOCAL_OPTIONS[scheme] and not _are_options(scheme, query):
        return f"unknown option after '?'; must be one of {', '.join(LOCAL_OPTIONS[scheme])}, as in ?NAME=VALUE"
    return None


def _are_options(scheme: str, query: str) -> bool:
    return all(pair.partition("=")[0] in LOCAL_OPTIONS[scheme] for pair in query.split("&") if pair)


def expanded(template: str, values: dict[str, str]) -> str:
    """Return the text with each `${...}` replaced by its value.

    In the user and password of an address the value is percent-encoded, so that it may hold any character.
    """
    masked, references = _masked(template)
    scheme, separator, rest = masked.partition("://")
    authority = _AUTHORITY.match(rest)
    userinfo = authority[0].rpartition("@")[0] if authority else ""
    start = len(scheme) + len(separator)
    safe = _SUB_DELIMITERS + ("" if ":" in userinfo else ":")  # one reference may hold `user:password`

    def value(position: int, reference: str) -> str:
        found = values[reference[2:-1]]
        if start <= position < start + len(userinfo):
            return quote(found, safe=safe, errors="surrogateescape")
        return found

    return _unmasked(masked, references, value)


def absolute_uri(uri: str, folder: Path) -> str:
    """Return the address with its path, where it has one on this machine, resolved against a folder."""
    scheme, _, rest = uri.partition(":")
    if scheme in ("file", "sdp"):
        return f"{scheme}:{folder / rest.removeprefix('//')}"
    if scheme == "demo" and rest.startswith("clips/"):
        return f"demo:clips/{folder / rest.removeprefix('clips/')}"
    return uri


def public_uri(uri: str) -> str:
    """Return the address for display: without user, password, query, and path segments that may be secret.

    Of an address that cannot be parsed only the scheme remains.  `${...}` stays as written.
    """
    masked, references = _masked(uri)
    if not REFERENCE.sub("", uri):
        return uri
    return _unmasked(_public(masked), references, lambda _, reference: reference)


def public_url(url: str) -> str:
    """Return the address of a service for display: the scheme, and of HTTP and MQTT the host, which others keep secret.

    `${...}` stays as written.
    """
    masked, references = _masked(url)
    if not REFERENCE.sub("", url):
        return url
    return _unmasked(_public_service(masked), references, lambda _, reference: reference)


def _public_service(url: str) -> str:
    scheme, separator, _ = url.partition("://")
    if not separator or not _SCHEME.fullmatch(scheme):
        return HIDDEN
    address = network_address(url) if scheme in SHOWN_HOSTS else None
    if address is None or address.is_ambiguous:
        return f"{scheme}://{HIDDEN}"
    return f"{scheme}://{address.netloc}" + (f"/{HIDDEN}" if address.path.strip("/") or address.query else "")


def _public(uri: str) -> str:
    scheme, colon, rest = uri.partition(":")
    if not colon or not _SCHEME.fullmatch(scheme):
        return HIDDEN
    if scheme in LOCAL_OPTIONS:
        return f"{scheme}:{_public_local(scheme, rest)}"
    address = network_address(uri)
    if address is None or address.is_ambiguous:
        return f"{scheme}:{HIDDEN}"
    return f"{scheme}://{address.netloc}{_public_path(address.path)}" + (f"?{HIDDEN}" if address.query else "")


def _public_local(scheme: str, rest: str) -> str:
    if userinfo_in(rest):
        return HIDDEN
    path, question, query = rest.partition("?")
    return path + question + (query if _are_options(scheme, query) else HIDDEN)


def _public_path(path: str) -> str:
    if "@" in path:
        return f"/{HIDDEN}"
    named = SECRET_IN_PATH.search(path)
    return TOKEN.sub(HIDDEN, path[: named.end()] + HIDDEN if named else path)


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _masked(text: str) -> tuple[str, list[str]]:
    """Return the text with one placeholder character per reference, and the references."""
    references = [match[0] for match in REFERENCE.finditer(text)]
    numbers = iter(range(len(references)))
    return REFERENCE.sub(lambda _: chr(_FIRST_PLACEHOLDER + next(numbers)), text), references


def _unmasked(masked: str, references: list[str], value: Callable[[int, str], str]) -> str:
    """Return the text with each remaining placeholder replaced by `value(position, reference)`."""
    pieces = []
    for position, character in enumerate(masked):
        number = ord(character) - _FIRST_PLACEHOLDER
        pieces.append(value(position, references[number]) if 0 <= number < len(references) else character)
    return "".join(pieces)
