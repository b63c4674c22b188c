"""What the entries of `sinks` share: the filter of what a sink is sent, and the certificates of its connection."""

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from pipeline.config.section import Identifier, Names, Section, SitePath
from pipeline.types import EventKind, Severity

Label = Literal["uav", "unknown", "bird", "airplane", "helicopter", "clutter"]  # of a track


class BaseSinkConfig(Section):
    """Destinations of events. Every sink has its own place in the stored events: see [Sinks](sinks.md)."""

    name: Identifier | None = None
    """Name of the sink in metrics, logs and dead letters, unique among the sinks; default: its type."""
    kinds: Annotated[list[EventKind], Field(min_length=1)] | None = None
    """Send only events of these kinds; default: of every kind."""
    min_severity: Severity | None = None
    """Send only events of this severity or a higher one (`info`, `warning`, `alarm`); default: of every severity."""
    cameras: Names | None = None
    """Send only events of these cameras; default: of every camera."""
    labels: Annotated[list[Label], Field(min_length=1)] | None = None
    """Send only events of tracks with one of these labels (`uav`, `unknown`, or a class); default: every event, with or
    without a track."""

    @property
    def secrets(self) -> set[str]:
        """Texts of this entry that must not be shown."""
        return set()

    @property
    def host(self) -> str | None:
        """Host and port where they are shown, or None."""
        return None


class ClientTls(Section):
    """Certificates of an encrypted connection; default: a server certificate that the system trusts."""

    ca: SitePath | None = None
    """PEM file of the server's certificate authority; default: those of the system."""
    certificate: SitePath | None = None
    """PEM file of a client certificate."""
    key: Annotated[SitePath | None, Field(validate_default=True)] = None
    """PEM file of its private key, without a passphrase; required where there is a `certificate`."""

    @field_validator("key")
    @classmethod
    def _with_certificate(cls, key: SitePath | None, info: ValidationInfo) -> SitePath | None:
        if (key is None) != (info.data.get("certificate") is None):
            raise ValueError("must be set together with certificate, or neither of them")
        return key
