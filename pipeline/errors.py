"""Exceptions of the pipeline, and their exit codes.

DasnetError             failure (exit code 1)
├── ConfigError         invalid configuration or command (exit code 2)
├── SourceError         a camera or file cannot be opened or read
│   └── CredentialsError    the camera rejected user or password
├── ImageError          not an image, too large, or an unsupported format
├── WireError           a message that this version cannot decode
├── ClusterError        the NATS servers of a site with several inference hosts cannot be used
└── StoreError          the store of tracks and events cannot be used
    └── DamagedStoreError   the file is damaged, or not a database
"""


class DasnetError(Exception):
    """Base class; the message names the place, the value, and what is expected."""

    exit_code = 1


class ConfigError(DasnetError):
    """An invalid configuration or command."""

    exit_code = 2


class SourceError(DasnetError):
    """A camera or file that cannot be opened or read."""


class CredentialsError(SourceError):
    """User or password rejected by a camera."""


class ImageError(DasnetError):
    """An image that cannot be read; the message does not name the file, the caller does."""


class WireError(DasnetError):
    """A message that this version cannot decode."""


class ClusterError(DasnetError):
    """The NATS servers of a site with several inference hosts cannot be used."""


class StoreError(DasnetError):
    """The store of tracks and events cannot be used."""


class DamagedStoreError(StoreError):
    """The store's file is damaged, or not a database."""
