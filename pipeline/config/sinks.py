"""The entries of `sinks`: destinations of events, each with the filter of what it is sent."""

import re
from typing import Annotated, Literal
from urllib.parse import unquote

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator

from pipeline.config.section import SitePath
from pipeline.config.sink import BaseSinkConfig, ClientTls
from pipeline.config.tactical import CotSinkConfig, SapientSinkConfig
from pipeline.config.uri import NetworkAddress, network_address
from pipeline.redaction import secrets_of, secrets_of_service
from pipeline.types import EventKind, Severity

MIN_SECRET_CHARACTERS = 16
_TOPIC = re.compile(r"[^/+#$\s\x00]([^+#\s\x00]{0,98}[^/+#\s\x00])?")
_CONTACT = re.compile(r"mailto:[^@\s]+@[^@\s]+|https://[^\s/]+(/\S*)?")
_SERVICE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")


def _topic(text: str) -> str:
    if not _TOPIC.fullmatch(text):
        raise ValueError(
            "must be at most 100 characters without blanks, + and #, with no / at either end and no $ first"
        )
    return text


def _broker_url(url: str) -> str:
    scheme, address = url.partition("://")[0], network_address(url)
    if scheme not in ("mqtt", "mqtts") or address is None or address.is_ambiguous or address.path or address.query:
        raise ValueError(
            "must be mqtt://HOST:PORT or mqtts://HOST:PORT, with USER:PASSWORD@ before the host where the broker asks "
            "for them; / ? # @ and % in them must be percent-encoded"
        )
    return url


def _service(url: str) -> str:
    if not _SERVICE.fullmatch(url):
        raise ValueError("must be an address of Apprise, SERVICE://..., as in mailtos://USER:PASSWORD@HOST")
    return url


def _contact(address: str) -> str:
    if not _CONTACT.fullmatch(address):
        raise ValueError("must be mailto:NAME@HOST or https://HOST")
    return address


def _service_place(place: str) -> str:
    address = network_address(f"https://{place}")
    if address is None or address.netloc.lower() != place.lower() or address.host.startswith("["):
        raise ValueError("must be HOST or HOST:PORT")
    return place.lower()


class JsonlSinkConfig(BaseSinkConfig):
    """A file with one JSON object per line."""

    type: Literal["jsonl"]
    """Type of the sink."""
    path: SitePath | None = None
    """The file; default: `events.jsonl` in the run folder."""


class WebhookSinkConfig(BaseSinkConfig):
    """HTTP POST of CloudEvents 1.0."""

    type: Literal["webhook"]
    """Type of the sink."""
    url: str
    """Address, `http://` or `https://`; shown nowhere but for its host."""
    secret: str | None = None
    """Key of the HMAC-SHA256 signature, at least 16 characters; default: not signed."""
    batch_size: Annotated[int, Field(ge=1, le=200)] = 1
    """Events per request: with 1 a request holds one event, with more a batch (a JSON list)."""
    timeout_s: Annotated[float, Field(gt=0, le=300)] = 10.0
    """Time limit of a request, in seconds."""
    ca: SitePath | None = None
    """PEM file of the certificate authority of an `https://` address; default: those of the system."""

    @field_validator("url")
    @classmethod
    def _valid_url(cls, url: str) -> str:
        scheme, address = url.partition("://")[0], network_address(url)
        if scheme not in ("http", "https") or address is None or address.is_ambiguous:
            raise ValueError(
                "must be http://HOST/PATH or https://HOST/PATH; / ? # @ and % in a user or password must be "
                "percent-encoded"
            )
        return url

    @field_validator("secret")
    @classmethod
    def _long_enough(cls, secret: str | None) -> str | None:
        if secret is not None and len(secret) < MIN_SECRET_CHARACTERS:
            raise ValueError(f"must have at least {MIN_SECRET_CHARACTERS} characters")
        return secret

    @property
    def secrets(self) -> set[str]:
        """The key, and everything of the address but its host."""
        address = network_address(self.url)
        place = f"{address.path}{address.query}".strip("/") if address else ""
        return ({self.secret or "", self.url} | secrets_of(self.url) | secrets_of_service(place)) - {""}

    @property
    def host(self) -> str | None:
        """Host and port of the address."""
        address = network_address(self.url)
        return address.netloc if address else None


class MqttSinkConfig(BaseSinkConfig):
    """Messages to an MQTT broker, with Home Assistant's discovery."""

    type: Literal["mqtt"]
    """Type of the sink."""
    url: Annotated[str, AfterValidator(_broker_url)]
    """Address of the broker, `mqtt://HOST:PORT` or, encrypted, `mqtts://HOST:PORT`, with `USER:PASSWORD@` before the
    host for a login; default ports: 1883 and 8883. Shown nowhere but for host and port."""
    version: Annotated[Literal["3.1.1", "5"], BeforeValidator(str)] = "5"
    """Version of the protocol."""
    tls: ClientTls | None = None
    topic: Annotated[str, AfterValidator(_topic)] = "dasnet"
    """First part of every topic; must differ between sites on one broker."""
    discovery: Annotated[str, AfterValidator(_topic)] | None = "homeassistant"
    """Home Assistant's discovery prefix; `null`: no discovery."""

    @field_validator("tls")
    @classmethod
    def _encrypted(cls, tls: ClientTls | None, info: ValidationInfo) -> ClientTls | None:
        if tls is not None and str(info.data.get("url", "mqtts:")).startswith("mqtt:"):
            raise ValueError("must be set with an mqtts:// url only")
        return tls

    @property
    def secrets(self) -> set[str]:
        """The address, and the login in it."""
        return ({self.url, self.password or ""} | secrets_of(self.url)) - {""}

    @property
    def host(self) -> str | None:
        """The broker's host and port."""
        return f"{self.broker}:{self.port}"

    @property
    def is_encrypted(self) -> bool:
        """Whether the connection uses TLS."""
        return self.url.startswith("mqtts:")

    @property
    def broker(self) -> str:
        """The broker's host name or address."""
        return self._address.host.strip("[]")

    @property
    def port(self) -> int:
        """The broker's TCP port."""
        return int(self._address.port or (8883 if self.is_encrypted else 1883))

    @property
    def username(self) -> str | None:
        """The name to log in with, or None."""
        return unquote(self._address.userinfo.partition(":")[0]) or None

    @property
    def password(self) -> str | None:
        """The password to log in with, or None."""
        return unquote(self._address.userinfo.partition(":")[2]) or None

    @property
    def _address(self) -> NetworkAddress:
        address = network_address(self.url)
        assert address is not None
        return address


class NotifySinkConfig(BaseSinkConfig):
    """A notification by mail, push or chat, through Apprise; needs `pip install "dasnet[notify]"`."""

    type: Literal["notify"]
    """Type of the sink."""
    kinds: Annotated[list[EventKind], Field(min_length=1)] | None = Field(
        default=[EventKind.ALERT_OPENED, EventKind.ALERT_ESCALATED, EventKind.CAMERA_DOWN, EventKind.CAMERA_BLIND]
    )
    """Send only events of these kinds; `null`: of every kind."""
    min_severity: Severity | None = Severity.WARNING
    """Send only events of this severity or a higher one (`info`, `warning`, `alarm`); `null`: of every severity."""
    url: Annotated[str, AfterValidator(_service)]
    """Apprise's address of one service, such as `mailtos://` or `ntfys://`; secret as a whole, never shown."""

    @property
    def secrets(self) -> set[str]:
        """The address, and what may be a user, a password or a token in it."""
        _, _, rest = self.url.partition("://")
        return {self.url, rest} | secrets_of(self.url) | secrets_of_service(rest)


class PushSinkConfig(BaseSinkConfig):
    """Notifications of browsers in which no tab is open (Web Push); needs `pip install "dasnet[push]"`."""

    type: Literal["push"]
    """Type of the sink."""
    kinds: Annotated[list[EventKind], Field(min_length=1)] | None = Field(
        default=[EventKind.ALERT_OPENED, EventKind.ALERT_ESCALATED]
    )
    """Send only events of these kinds; `null`: of every kind."""
    min_severity: Severity | None = Severity.WARNING
    """Send only events of this severity or a higher one (`info`, `warning`, `alarm`); `null`: of every severity."""
    contact: Annotated[str, AfterValidator(_contact)]
    """Where push services reach whoever runs the site, `mailto:NAME@HOST` or `https://HOST`; they are sent it."""
    services: list[Annotated[str, AfterValidator(_service_place)]] = []
    """Push services, `HOST` or `HOST:PORT`, that are not in public; default: only hosts with public addresses."""
    ca: SitePath | None = None
    """PEM file of a certificate authority that is trusted besides those of the system."""

    @property
    def places(self) -> frozenset[str]:
        """`HOST:PORT` of `services`."""
        return frozenset(place if ":" in place else f"{place}:443" for place in self.services)


SinkConfig = Annotated[
    JsonlSinkConfig
    | WebhookSinkConfig
    | MqttSinkConfig
    | NotifySinkConfig
    | PushSinkConfig
    | CotSinkConfig
    | SapientSinkConfig,
    Field(discriminator="type"),
]
