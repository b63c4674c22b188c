"""A camera that turns, as ONVIF's core, media and PTZ services define it: a real HTTP server that speaks SOAP 1.2.

It checks the digests of WS-UsernameToken against its own clock, and misbehaves on demand.
"""

import base64
import hashlib
import re
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from xml.etree import ElementTree

_NAMESPACES = {
    "s": "http://www.w3.org/2003/05/soap-envelope",
    "tt": "http://www.onvif.org/ver10/schema",
    "tds": "http://www.onvif.org/ver10/device/wsdl",
    "trt": "http://www.onvif.org/ver10/media/wsdl",
    "tr2": "http://www.onvif.org/ver20/media/wsdl",
    "tptz": "http://www.onvif.org/ver20/ptz/wsdl",
    "ter": "http://www.onvif.org/ver10/error",
}
_SPACES = "http://www.onvif.org/ver10/tptz/PanTiltSpaces"
GENERIC, DEGREES = f"{_SPACES}/PositionGenericSpace", f"{_SPACES}/SphericalPositionSpaceDegrees"
MAX_SKEW_S = 10.0


class OnvifCamera:
    """`with OnvifCamera() as camera:`; where it looks is `look`, which tests replace.

    Attributes:
        look: returns pan, tilt, zoom (None: not told) and IDLE, MOVING or None.
        space: of pan and tilt.
        clock_ahead_s: of its clock.
        services: it has, by prefix.
        body: what it answers to GetStatus instead; None: the status.
        hangs: it does not answer.
        challenges: it wants an HTTP digest instead of a token in the message.
        challenge: what it challenges with.
        challenge_body: what comes with the challenge.
        year: that its clock tells; None: the true one.
        service_host: in the addresses of its services, by which it cannot be reached, as behind NAT.
        requests: names of the requests that it accepted.
        received: all messages, one after the other.
    """

    def __init__(self, user: str = "me", password: str = "s3cr3t-Pass") -> None:
        self.user, self.password = user, password
        self.look: Callable[[], tuple[float, float, float | None, str | None]] = lambda: (0.0, 0.0, 0.0, "IDLE")
        self.space = GENERIC
        self.clock_ahead_s = 0.0
        self.services = ["tds", "trt", "tptz"]
        self.body: str | None = None
        self.hangs = self.challenges = False
        self.challenge = 'Digest realm="camera", nonce="abc", qop="auth", algorithm=MD5'
        self.challenge_body = ""
        self.year: int | None = None
        self.service_host = "10.255.255.1:8000"
        self.requests: list[str] = []
        self.received = b""
        self._nonces: set[str] = set()
        self._released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True

    @property
    def port(self) -> int:
        return self._server.server_port

    @property
    def url(self) -> str:
        return self.url_with(self.user, self.password)

    def url_with(self, user: str, password: str) -> str:
        return f"http://{user}:{password}@127.0.0.1:{self.port}/onvif/device_service"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, data: bytes, authorization: str) -> tuple[int, str]:
        """The status and body of an answer; 401 is a challenge."""
        self.received += data
        if self.hangs:
            self._released.wait(30)
        envelope = ElementTree.fromstring(data)
        request = envelope.find("s:Body", _NAMESPACES)[0]
        name = request.tag.rpartition("}")[2]
        if name != "GetSystemDateAndTime" and self.user:
            if self.challenges and not self._answers_challenge(authorization):
                return 401, self.challenge_body
            if not self.challenges and not self._is_authentic(envelope):
                return 400, fault("s:Sender", "ter:NotAuthorized", "Sender not authorized")
        self.requests.append(name)
        return 200, enveloped(getattr(self, f"_{name}")(request))

    def _answers_challenge(self, authorization: str) -> bool:
        """RFC 7616, with MD5 as cameras have it."""
        given = dict(re.findall(r'(\w+)="?([^",]+)"?', authorization))
        one = _md5(f"{self.user}:camera:{self.password}")
        two = _md5(f"POST:{given.get('uri')}")
        parts = (one, "abc", given.get("nc"), given.get("cnonce"), "auth", two)
        return given.get("username") == self.user and given.get("response") == _md5(":".join(map(str, parts)))

    def _is_authentic(self, envelope: ElementTree.Element) -> bool:
        token = envelope.find(".//{*}UsernameToken")
        if token is None:
            return False
        nonce, created = token.findtext("{*}Nonce", ""), token.findtext("{*}Created", "")
        age = self._now() - datetime.fromisoformat(created)
        digest = hashlib.sha1(base64.b64decode(nonce) + created.encode() + self.password.encode()).digest()
        is_new = nonce not in self._nonces
        self._nonces.add(nonce)
        return (
            is_new
            and abs(age.total_seconds()) < MAX_SKEW_S
            and token.findtext("{*}Username") == self.user
            and token.findtext("{*}Password") == base64.b64encode(digest).decode()
        )

    def _now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.clock_ahead_s)

    def _GetSystemDateAndTime(self, _: ElementTree.Element) -> str:
        now = self._now()
        return (
            "<tds:GetSystemDateAndTimeResponse><tds:SystemDateAndTime><tt:DateTimeType>NTP</tt:DateTimeType>"
            f"<tt:DaylightSavings>false</tt:DaylightSavings><tt:UTCDateTime><tt:Time><tt:Hour>{now.hour}</tt:Hour>"
            f"<tt:Minute>{now.minute}</tt:Minute><tt:Second>{now.second}</tt:Second></tt:Time><tt:Date>"
            f"<tt:Year>{self.year or now.year}</tt:Year><tt:Month>{now.month}</tt:Month><tt:Day>{now.day}</tt:Day>"
            "</tt:Date></tt:UTCDateTime></tds:SystemDateAndTime></tds:GetSystemDateAndTimeResponse>"
        )

    def _GetServices(self, _: ElementTree.Element) -> str:
        each = (
            f"<tds:Service><tds:Namespace>{_NAMESPACES[prefix]}</tds:Namespace>"
            f"<tds:XAddr>http://{self.service_host}/onvif/{prefix}</tds:XAddr><tds:Version><tt:Major>2</tt:Major>"
            "<tt:Minor>60</tt:Minor></tds:Version></tds:Service>"
            for prefix in self.services
        )
        return f"<tds:GetServicesResponse>{''.join(each)}</tds:GetServicesResponse>"

    def _GetProfiles(self, request: ElementTree.Element) -> str:
        if "ver20" in request.tag:
            return (
                '<tr2:GetProfilesResponse><tr2:Profiles token="two" fixed="true"><tr2:Name>main</tr2:Name>'
                '<tr2:Configurations><tr2:PTZ token="ptz"/></tr2:Configurations></tr2:Profiles>'
                "</tr2:GetProfilesResponse>"
            )
        turning = '<tt:PTZConfiguration token="ptz"><tt:NodeToken>node</tt:NodeToken></tt:PTZConfiguration>'
        return (
            '<trt:GetProfilesResponse><trt:Profiles token="fixed"><tt:Name>overview</tt:Name></trt:Profiles>'
            f'<trt:Profiles token="one"><tt:Name>main</tt:Name>{turning}</trt:Profiles>'
            f'<trt:Profiles token="sub"><tt:Name>sub</tt:Name>{turning}</trt:Profiles></trt:GetProfilesResponse>'
        )

    def _GetStatus(self, request: ElementTree.Element) -> str:
        assert request.findtext("{*}ProfileToken") in ("one", "sub", "two")
        if self.body is not None:
            return self.body
        pan, tilt, zoom, moving = self.look()
        told = f'<tt:Zoom x="{zoom}" space="x/PositionGenericSpace"/>' if zoom is not None else ""
        moves = f"<tt:PanTilt>{moving}</tt:PanTilt><tt:Zoom>IDLE</tt:Zoom>"
        return (
            f'<tptz:GetStatusResponse><tptz:PTZStatus><tt:Position><tt:PanTilt x="{pan}" y="{tilt}" '
            f'space="{self.space}"/>{told}</tt:Position>'
            + (f"<tt:MoveStatus>{moves}</tt:MoveStatus>" if moving is not None else "")
            + f"<tt:UtcTime>{self._now().isoformat()}</tt:UtcTime></tptz:PTZStatus></tptz:GetStatusResponse>"
        )


def _md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def sweep(pan_per_s: float) -> Callable[[], tuple[float, float, float | None, str | None]]:
    """It turns evenly from now on."""
    started_s = time.monotonic()
    return lambda: (pan_per_s * (time.monotonic() - started_s), 0.0, 0.0, "MOVING")


def enveloped(body: str) -> str:
    spaces = " ".join(f'xmlns:{prefix}="{uri}"' for prefix, uri in _NAMESPACES.items())
    return f'<?xml version="1.0" encoding="UTF-8"?><s:Envelope {spaces}><s:Body>{body}</s:Body></s:Envelope>'


def fault(code: str, subcode: str, text: str) -> str:
    return enveloped(
        f"<s:Fault><s:Code><s:Value>{code}</s:Value><s:Subcode><s:Value>{subcode}</s:Value></s:Subcode></s:Code>"
        f'<s:Reason><s:Text xml:lang="en">{text}</s:Text></s:Reason></s:Fault>'
    )


def _handler(camera: OnvifCamera) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            status, body = camera.answer(data, self.headers.get("Authorization", ""))
            self.send_response(status)
            self.send_header("Content-Type", "application/soap+xml; charset=utf-8")
            if status == 401:
                self.send_header("WWW-Authenticate", camera.challenge)
            self.send_header("Content-Length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    return Handler
