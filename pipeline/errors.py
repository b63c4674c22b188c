"""What goes wrong in the pipeline, and the exit code of each.

DasnetError             failed (exit code 1)
├── ConfigError         a configuration or command that cannot be used (exit code 2)
├── SourceError         a camera or file that cannot be opened or read on
│   └── CredentialsError    the camera refused the user or password
├── ImageError          an image that is no image, too large, or of a kind that is not read
├── WireError           a message that this version does not understand
└── StoreError          the store of tracks and events cannot be used
    └── DamagedStoreError   its file is damaged, or no database
"""


class DasnetError(Exception):
    """Its text names the place, the bad value, and what is allowed."""

    exit_code = 1


class ConfigError(DasnetError):
    exit_code = 2


class SourceError(DasnetError):
    pass


class CredentialsError(SourceError):
    pass


class ImageError(DasnetError):
    """Its text does not name the file: the caller does."""


class WireError(DasnetError):
    pass


class StoreError(DasnetError):
    pass


class DamagedStoreError(StoreError):
    pass
