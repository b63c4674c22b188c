"""The entries of `sinks` for situation pictures: Cursor on Target (TAK) and SAPIENT."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from pipeline.config.sink import BaseSinkConfig, ClientTls
from pipeline.config.uri import NetworkAddress, network_address


def _is_endpoint(url: str, *schemes: str) -> bool:
    """Return whether a URL is SCHEME://HOST:PORT and nothing else."""
    scheme, address = url.partition("://")[0], network_address(url)
    if scheme not in schemes or address is None or not int(address.port or 0):
        return False
    return not (address.userinfo or address.path or address.query)


def _tak_url(url: str) -> str:
    if not _is_endpoint(url, "tcp", "tls", "udp"):
        raise ValueError("must be tcp://HOST:PORT, tls://HOST:PORT or udp://HOST:PORT, without user and path")
    return url


def _node_url(url: str) -> str:
    if not _is_endpoint(url, "tcp"):
        raise ValueError("must be tcp://HOST:PORT, without user and path")
    return url


class TacticalSinkConfig(BaseSinkConfig):
    """A connection to one host and port."""

    url: str
    """Address."""

    @property
    def certificates(self) -> ClientTls:
        """Certificates of an encrypted connection."""
        return ClientTls()

    @property
    def host(self) -> str | None:
        """Host and port."""
        return self._address.netloc

    @property
    def scheme(self) -> str:
        """The protocol below."""
        return self.url.partition(":")[0]

    @property
    def server(self) -> str:
        """Host name or address."""
        return self._address.host.strip("[]")

    @property
    def port(self) -> int:
        """Port."""
        return int(self._address.port)

    @property
    def _address(self) -> NetworkAddress:
        address = network_address(self.url)
        assert address is not None
        return address


class CotSinkConfig(TacticalSinkConfig):
    """Cursor on Target (TAK): cameras with a pose, and bearings of their alerts; needs `pip install "dasnet[cot]"`."""

    type: Literal["cot"]
    """Type of the sink."""
    url: Annotated[str, AfterValidator(_tak_url)]
    """Address of the TAK server, `tcp://HOST:PORT` or, encrypted, `tls://HOST:PORT`; or `udp://HOST:PORT`, a host or a
    multicast group such as `239.2.3.1:6969`."""
    tls: ClientTls | None = None
    line_m: Annotated[float, Field(ge=10, le=100_000)] = 1000.0
    """Length of the bearing lines and of the fields of view on the map; the distance of a target is not known."""

    @field_validator("tls")
    @classmethod
    def _encrypted(cls, tls: ClientTls | None, info: ValidationInfo) -> ClientTls | None:
        if tls is not None and not str(info.data.get("url", "tls:")).startswith("tls:"):
            raise ValueError("must be set with a tls:// url only")
        return tls

    @property
    def certificates(self) -> ClientTls:
        """Certificates of an encrypted connection."""
        return self.tls or ClientTls()


class SapientSinkConfig(TacticalSinkConfig):
    """SAPIENT (BSI Flex 335 v2): each camera is a node that registers itself; needs `pip install "dasnet[sapient]"`."""

    type: Literal["sapient"]
    """Type of the sink."""
    url: Annotated[str, AfterValidator(_node_url)]
    """Address of the middleware or fusion node, `tcp://HOST:PORT`."""
