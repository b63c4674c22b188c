"""What a camera that turns says by ONVIF: pan, tilt and zoom of `GetStatus`, over SOAP 1.2.

Only the four requests that it takes: the libraries for all of ONVIF load its schemas, tens of MB and seconds in the
worker of each camera.  Requests carry a WS-UsernameToken digest, stamped with the camera's own time, and answer an HTTP
digest challenge.  They go to the host of the configured address only: cameras often tell one by which they cannot be
reached, and credentials are for that host.
"""

import base64
import hashlib
import math
import os
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import MAXYEAR, UTC, datetime, timedelta
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import httpx

from pipeline.config.uri import network_address
from pipeline.errors import SourceError

TIMEOUT_S = 2.0  # of each step of a request
REQUEST_LIMIT_S = 5.0  # of the whole of it
MAX_ANSWER_BYTES = 1 << 20
PTZ = "http://www.onvif.org/ver20/ptz/wsdl"
MEDIA, MEDIA2 = "http://www.onvif.org/ver10/media/wsdl", "http://www.onvif.org/ver20/media/wsdl"
DEVICE = "http://www.onvif.org/ver10/device/wsdl"
DEGREES = ("SphericalPositionSpaceDegrees", "SphericalPositionSpace")  # ends of position spaces in degrees
_ENVELOPE = (
    '<?xml version="1.0" encoding="utf-8"?><s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope">'
    "<s:Header>{header}</s:Header><s:Body>{body}</s:Body></s:Envelope>"
)
_WSS = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-"
_TOKEN = (
    f'<w:Security xmlns:w="{_WSS}wssecurity-secext-1.0.xsd" xmlns:u="{_WSS}wssecurity-utility-1.0.xsd">'
    "<w:UsernameToken><w:Username>{user}</w:Username>"
    f'<w:Password Type="{_WSS}username-token-profile-1.0#PasswordDigest">{{digest}}</w:Password>'
    f'<w:Nonce EncodingType="{_WSS}soap-message-security-1.0#Base64Binary">{{nonce}}</w:Nonce>'
    "<u:Created>{created}</u:Created></w:UsernameToken></w:Security>"
)


class OnvifError(SourceError):
    """No pose from a camera; `cause` is one of `unreachable`, `credentials`, `no_ptz`, `answer`."""

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


@dataclass(frozen=True)
class PtzStatus:
    """An answer to `GetStatus`.

    Attributes:
        pan: in degrees or, like the others, in the camera's own positions.
        tilt: likewise.
        zoom: None: not told.
        in_degrees: of pan and tilt.
        is_moving: None: not told.
        mono_ns: middle of the request, on this host's monotonic clock.
        error_ns: half of the time that it took.
    """

    pan: float
    tilt: float
    zoom: float | None
    in_degrees: bool
    is_moving: bool | None
    mono_ns: int
    error_ns: int


class _Limited(httpx.HTTPTransport):
    """Ends answers that have no end, also a digest challenge, which httpx reads by itself."""

    def __init__(self, place: str, context: ssl.SSLContext | bool) -> None:
        super().__init__(verify=context, trust_env=False)
        self._place = place

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = super().handle_request(request)
        answer.headers.pop("Content-Encoding", None)  # it was not asked for, and little data can become much
        assert isinstance(answer.stream, httpx.SyncByteStream)
        answer.stream = _LimitedStream(answer.stream, self._place)
        return answer


class _LimitedStream(httpx.SyncByteStream):
    def __init__(self, stream: httpx.SyncByteStream, place: str) -> None:
        self._stream, self._place = stream, place
        self._deadline_s = time.monotonic() + REQUEST_LIMIT_S

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        for chunk in self._stream:
            size += len(chunk)
            if size > MAX_ANSWER_BYTES or time.monotonic() > self._deadline_s:
                raise OnvifError("answer", f"{self._place}: an answer without an end")
            yield chunk

    def close(self) -> None:
        self._stream.close()


class OnvifDevice:
    """A connection to a camera, from its device service to the profile whose status is read.

    Attributes:
        clock_ahead_s: by which the camera's clock is ahead of this host's; None: it does not tell.
        place: the camera's host and port.
    """

    def __init__(self, url: str, profile: str | None = None) -> None:
        """Ask for the camera's clock, services and profiles.  Raise OnvifError."""
        address = network_address(url)
        assert address is not None
        self.place = address.netloc
        self._base = f"{url.partition('://')[0]}://{address.netloc}"
        self._user, _, self._password = (unquote(part) for part in address.userinfo.partition(":"))
        try:
            (self._user + self._password).encode()
        except UnicodeEncodeError:
            raise OnvifError("credentials", f"{self.place}: user and password must be UTF-8") from None
        self.clock_ahead_s: float | None = None
        auth = httpx.DigestAuth(self._user, self._password) if self._user else None
        context: ssl.SSLContext | bool = ssl.create_default_context() if url.startswith("https:") else False
        self._client = httpx.Client(
            timeout=TIMEOUT_S, transport=_Limited(self.place, context), auth=auth, trust_env=False
        )
        try:
            self._device = self._base + (address.path or "/onvif/device_service")
            self.clock_ahead_s = self._clock_ahead_s()
            services = self._services()
            self._ptz = services[PTZ]
            self.profile = self._profile(services, profile)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def status(self) -> PtzStatus:
        """Ask where the camera looks.  Raise OnvifError."""
        body = f'<GetStatus xmlns="{PTZ}"><ProfileToken>{escape(self.profile)}</ProfileToken></GetStatus>'
        started_ns = time.monotonic_ns()
        answer = self._call(self._ptz, body)
        took_ns = time.monotonic_ns() - started_ns
        turn = answer.find(".//{*}PTZStatus/{*}Position/{*}PanTilt")
        if turn is None:
            raise OnvifError("answer", f"{self.place}: the camera does not tell its pan and tilt")
        zoom = answer.find(".//{*}PTZStatus/{*}Position/{*}Zoom")
        return PtzStatus(
            pan=self._number(turn, "x"),
            tilt=self._number(turn, "y"),
            zoom=self._number(zoom, "x") if zoom is not None else None,
            in_degrees=turn.get("space", "").endswith(DEGREES),
            is_moving=_is_moving(answer),
            mono_ns=started_ns + took_ns // 2,
            error_ns=took_ns // 2,
        )

    def _clock_ahead_s(self) -> float | None:
        """Return how far the camera's clock is ahead: what is stamped otherwise is refused."""
        try:
            answer = self._call(self._device, f'<GetSystemDateAndTime xmlns="{DEVICE}"/>', signs=False)
        except OnvifError as error:
            if error.cause == "unreachable":
                raise
            return None
        units = ("Date/{*}Year", "Date/{*}Month", "Date/{*}Day", "Time/{*}Hour", "Time/{*}Minute", "Time/{*}Second")
        try:
            numbers = [int(answer.findtext(f".//{{*}}UTCDateTime/{{*}}{unit}", "")) for unit in units]
            there = datetime(*numbers[:5], second=min(59, numbers[5]), tzinfo=UTC)  # type: ignore[arg-type,misc]
        except (ValueError, OverflowError):
            return None
        return (there - datetime.now(UTC)).total_seconds() if there.year < MAXYEAR else None

    def _services(self) -> dict[str, str]:
        """Return the addresses of the camera's services by namespace, on the configured host."""
        body = f'<GetServices xmlns="{DEVICE}"><IncludeCapability>false</IncludeCapability></GetServices>'
        found = self._call(self._device, body).iterfind(".//{*}Service")
        try:
            services = {
                service.findtext("{*}Namespace", ""): self._base + urlsplit(service.findtext("{*}XAddr", "")).path
                for service in found
            }
        except ValueError as error:
            raise OnvifError("answer", f"{self.place}: address of a service: {error}") from None
        if PTZ not in services:
            raise OnvifError("no_ptz", f"{self.place}: the camera has no PTZ service; must be one that turns")
        return services

    def _profile(self, services: dict[str, str], wanted: str | None) -> str:
        """Return the token of the profile to read."""
        if MEDIA in services:
            answer = self._call(services[MEDIA], f'<GetProfiles xmlns="{MEDIA}"/>')
        elif MEDIA2 in services:
            answer = self._call(services[MEDIA2], f'<GetProfiles xmlns="{MEDIA2}"><Type>PTZ</Type></GetProfiles>')
        else:
            raise OnvifError("no_ptz", f"{self.place}: the camera has no media service, which names its profiles")
        turning = ("{*}PTZConfiguration", "{*}Configurations/{*}PTZ")
        tokens = [
            profile.get("token", "")
            for profile in answer.iterfind(".//{*}Profiles")
            if any(profile.find(path) is not None for path in turning)
        ]
        if wanted is not None and wanted not in tokens:
            known = ", ".join(tokens) or "none has a PTZ configuration"
            raise OnvifError("no_ptz", f"{self.place}: onvif.profile {wanted!r}: must be one of the camera's: {known}")
        if not tokens:
            raise OnvifError("no_ptz", f"{self.place}: none of the camera's profiles has a PTZ configuration")
        return wanted or tokens[0]

    def _call(self, url: str, body: str, *, signs: bool = True) -> ElementTree.Element:
        """Return the answer to a request."""
        header = self._token() if signs and self._user else ""
        content = _ENVELOPE.format(header=header, body=body).encode()
        status, data = self._post(url, content)
        answer = self._parsed(data, status)
        fault = answer.find(".//{*}Fault") if answer is not None else None
        codes = " ".join(value.text or "" for value in fault.iterfind(".//{*}Value")) if fault is not None else ""
        if status in (401, 403) or "NotAuthorized" in codes or "FailedAuthentication" in codes:
            raise OnvifError("credentials", f"{self.place}: the camera refuses the user or the password{self._skew()}")
        if answer is None or status != 200 or fault is not None:
            text = fault.findtext(".//{*}Text", "") if fault is not None else ""
            text = " ".join((text or codes).split())[:100]
            raise OnvifError("answer", f"{self.place}: answered {status}" + (f": {text}" if text else ""))
        return answer

    def _post(self, url: str, content: bytes) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/soap+xml; charset=utf-8", "Accept-Encoding": "identity"}
        try:
            answer = self._client.post(url, content=content, headers=headers)
        except httpx.TimeoutException:
            raise OnvifError("unreachable", f"{self.place}: no answer within {TIMEOUT_S:.0f} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise OnvifError("unreachable", f"{self.place}: {type(error).__name__}: {error}") from None
        except (LookupError, ValueError, NotImplementedError):  # httpx's digest: malformed, unknown, or qop=auth-int
            raise OnvifError("credentials", f"{self.place}: asks for the password in an unknown way") from None
        return answer.status_code, answer.content

    def _parsed(self, data: bytes, status: int) -> ElementTree.Element | None:
        """Return an answer, or None where it is no XML, as pages of errors are not."""
        try:
            if b"<!DOCTYPE" in data or b"\0" in data:  # not in SOAP: entities can make a parser expand without end
                raise ValueError("document type")
            return ElementTree.fromstring(data)
        except (ElementTree.ParseError, ValueError):
            if status == 200:
                raise OnvifError("answer", f"{self.place}: the answer is no SOAP message") from None
            return None

    def _token(self) -> str:
        nonce = os.urandom(16)
        stamped = datetime.now(UTC) + timedelta(seconds=self.clock_ahead_s or 0.0)
        created = stamped.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        digest = hashlib.sha1(nonce + (created + self._password).encode(), usedforsecurity=False).digest()
        return _TOKEN.format(
            user=escape(self._user),
            digest=base64.b64encode(digest).decode(),
            nonce=base64.b64encode(nonce).decode(),
            created=created,
        )

    def _skew(self) -> str:
        ahead_s = self.clock_ahead_s
        if ahead_s is None:
            return "; it does not tell its clock, which must be right for the password's digest"
        return f"; its clock is {abs(ahead_s):.0f} s {'ahead' if ahead_s > 0 else 'behind'}" if abs(ahead_s) > 5 else ""

    def _number(self, element: ElementTree.Element, name: str) -> float:
        text = element.get(name, "")
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not abs(value) <= 36_000:
            raise OnvifError("answer", f"{self.place}: position {text[:20]!r}: must be a number")
        return value


def _is_moving(answer: ElementTree.Element) -> bool | None:
    """Return whether the camera says that it moves, None where it says neither."""
    parts = answer.iterfind(".//{*}PTZStatus/{*}MoveStatus/*")
    said = {(part.text or "").strip().upper() for part in parts}
    if "MOVING" in said:
        return True
    return False if said == {"IDLE"} else None
