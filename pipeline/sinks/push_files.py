"""What Web Push keeps in the run folder: this site's key, and the browsers that subscribed.

`push/` is readable by its owner alone: with the key and a browser's file anybody could send it notifications.  The
console writes the browsers' files, one each; the sink removes those of browsers that are gone.
"""

import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Collection
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pipeline.errors import StoreError
from pipeline.store.folders import write_private

FOLDER, KEY = "push", "vapid.pem"
MAX_BROWSERS = 50
AUTH_BYTES = 16


class PushKeys(msgspec.Struct, frozen=True):
    """Keys of a browser with which notifications are encrypted, in base64url."""

    p256dh: str
    auth: str


class PushSubscription(msgspec.Struct, frozen=True):
    """A browser that asked for notifications, as it describes itself."""

    endpoint: str
    keys: PushKeys

    @property
    def public_key(self) -> bytes:
        """Return the browser's public key, an uncompressed point.  Raise ValueError."""
        try:
            point = decoded(self.keys.p256dh)
            ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
        except ValueError:
            raise ValueError("p256dh must be a public key on the curve P-256, in base64url") from None
        return point

    @property
    def auth(self) -> bytes:
        """Return the secret of the browser.  Raise ValueError."""
        secret = decoded(self.keys.auth)
        if len(secret) != AUTH_BYTES:
            raise ValueError(f"auth must have {AUTH_BYTES} bytes, in base64url")
        return secret


class Subscribed(msgspec.Struct, frozen=True):
    """A subscription, and whose it is."""

    subscription: PushSubscription
    owner: str  # digest of the user; with any change of the user it has ended
    cameras: frozenset[str] | None = None  # of which the user is told; None: all


class PushFiles:
    """The files of a run folder.  Its methods raise StoreError where they cannot be read or written."""

    def __init__(self, run_dir: Path) -> None:
        self._folder = run_dir / FOLDER

    def key(self) -> ec.EllipticCurvePrivateKey:
        """Return this site's key, which is made where there is none."""
        path = self._folder / KEY
        try:
            if not path.exists():
                self._make_key(path)
            key = serialization.load_pem_private_key(path.read_bytes(), None)
        except OSError as error:
            raise StoreError(f"{path}: cannot be read or made ({error.strerror})") from error
        except (ValueError, TypeError):
            key = None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise StoreError(
                f"{path}: must be a P-256 key in PEM; delete it for a new one, to which browsers subscribe anew"
            )
        return key

    def _make_key(self, path: Path) -> None:
        """Write a new key, unless another process was faster."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        new = path.with_name(f"{KEY}.{hashlib.sha256(pem).hexdigest()[:16]}")
        write_private(new, pem)
        try:
            path.hardlink_to(new)
        except FileExistsError:
            pass
        finally:
            new.unlink()

    def subscriptions(self) -> list[PushSubscription]:
        """Return those of all browsers; a file that cannot be read is left out."""
        return [stored.subscription for _, stored in self._all()]

    def subscribed(self) -> list[Subscribed]:
        """Return the subscriptions with their owners, likewise."""
        return [stored for _, stored in self._all()]

    def add(self, subscription: PushSubscription, owner: str, cameras: frozenset[str] | None = None) -> bool:
        """Store a subscription; return False where there are too many."""
        path = self._path(subscription.endpoint)
        if not path.exists() and len(self._all()) >= MAX_BROWSERS:
            return False
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private(path, msgspec.json.encode(Subscribed(subscription, owner, cameras)))
        except OSError as error:
            raise StoreError(f"{self._folder}: cannot be written ({error.strerror})") from error
        return True

    def remove(self, endpoint: str) -> None:
        """Remove a subscription, if there is one."""
        try:
            self._path(endpoint).unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"{self._folder}: cannot be written ({error.strerror})") from error

    def remove_of_others(self, owners: Collection[str]) -> None:
        """Remove the subscriptions of all but these owners."""
        for _, stored in self._all():
            if stored.owner not in owners:
                self.remove(stored.subscription.endpoint)

    def _path(self, endpoint: str) -> Path:
        return self._folder / f"{hashlib.sha256(endpoint.encode()).hexdigest()}.json"

    def _all(self) -> list[tuple[Path, Subscribed]]:
        found = []
        for path in sorted(self._folder.glob("*.json")):
            try:
                found.append((path, msgspec.json.decode(path.read_bytes(), type=Subscribed)))
            except (OSError, msgspec.MsgspecError):  # removed in between, or not ours
                continue
        return found


def encoded(data: bytes) -> str:
    """Return base64url without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    """Return what base64url stands for, with or without padding.  Raise ValueError."""
    return urlsafe_b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4))


def public_key(key: ec.EllipticCurvePrivateKey) -> str:
    """Return the public key as browsers take it."""
    point = key.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    return encoded(point)
