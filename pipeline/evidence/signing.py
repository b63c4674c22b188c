"""The Ed25519 key that signs the heads of the evidence log.

NAME.key_secret    PKCS 8 in PEM, readable by its owner alone
NAME.key           the public key in PEM, to be kept where nobody who can write the run folder can write
"""

import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from pipeline.errors import ConfigError
from pipeline.evidence.log import EvidenceError
from pipeline.store.folders import sync_folder

NAME = "evidence"
SECRET_SUFFIX, PUBLIC_SUFFIX = ".key_secret", ".key"
KEY_DIGITS = 64


def make_key(secret: Path) -> bool:
    """Make a key unless the file of the secret one exists; return whether it was made.  Raise EvidenceError."""
    if secret.exists():
        return False
    key = Ed25519PrivateKey.generate()
    try:
        secret.parent.mkdir(parents=True, exist_ok=True)
        _write(secret.with_suffix(PUBLIC_SUFFIX), public_pem(public_hex(key.public_key())), 0o644)
        _write(secret, _pem(key), 0o600)
        sync_folder(secret.parent)
    except OSError as error:
        raise EvidenceError(f"{secret}: cannot be written ({error.strerror})") from error
    return True


def load_key(secret: Path) -> Ed25519PrivateKey:
    """Return the key of a file.  Raise EvidenceError."""
    try:
        key = serialization.load_pem_private_key(secret.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise EvidenceError(f"{secret}: cannot be read; must be an Ed25519 key, as `dasnet keys` makes it") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise EvidenceError(f"{secret}: is a key of another kind; must be an Ed25519 key, as `dasnet keys` makes it")
    return key


def public_hex(key: Ed25519PublicKey) -> str:
    """Return a public key as 64 hexadecimal digits."""
    return key.public_bytes_raw().hex()


def public_pem(key: str) -> bytes:
    """Return a public key, given as hexadecimal digits, in PEM."""
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def read_public(text: str) -> str:
    """Return the public key that a user named: its digits, or a file of it in PEM.  Raise ConfigError."""
    if len(text) == KEY_DIGITS and all(digit in "0123456789abcdef" for digit in text.lower()):
        return text.lower()
    try:
        key = serialization.load_pem_public_key(Path(text).read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"key {text!r}: must be {KEY_DIGITS} hexadecimal digits, or a `.key` file") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"key {text}: is of another kind; must be Ed25519")
    return public_hex(key)


def is_signed(text: bytes, signature: str, key: str) -> bool:
    """Return whether a signature, in hexadecimal digits as the public key, is that of a text."""
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(bytes.fromhex(signature), text)
    except (InvalidSignature, ValueError):
        return False
    return True


def _pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, data: bytes, mode: int) -> None:
    """Write a file at once or not at all; never readable by more than its mode says."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    partial.replace(path)
