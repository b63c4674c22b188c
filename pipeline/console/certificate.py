"""TLS of the console: load certificate and key, and reload them when the files change.

Problems that make browsers reject a certificate (expired, not yet valid) are found by a handshake in memory with a
client that trusts only this certificate.
"""

import asyncio
import ssl
from pathlib import Path

import structlog

from pipeline.config.console import Tls
from pipeline.errors import ConfigError

PERIOD_S = 10.0  # between checks for changes
VERIFY_X509_PARTIAL_CHAIN = ssl.VerifyFlags(0x80000)  # in ssl since Python 3.12; the certificate is its own anchor


def load(tls: Tls) -> ssl.SSLContext:
    """Load certificate and key.

    Raises:
        ConfigError: They cannot be used.
    """
    for key, path in (("certificate", tls.certificate), ("key", tls.key)):
        try:
            text = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"console.tls.{key}: {path} cannot be read ({error.strerror})") from error
        if b"-----BEGIN " not in text:
            raise ConfigError(f"console.tls.{key}: {path} must be a PEM file")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(tls.certificate, tls.key, password=_no_passphrase)
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(f"console.tls: {_fault(tls, error)}") from error
    return context


def _no_passphrase() -> bytes:
    raise ConfigError("console.tls.key: is encrypted; must have no passphrase")


def _fault(tls: Tls, error: OSError) -> str:
    if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
        return f"the key {tls.key} does not belong to the certificate {tls.certificate}"
    return f"{tls.certificate} and {tls.key} must be a certificate and its key, both in PEM"


def browser_objection(context: ssl.SSLContext, certificate: Path) -> str | None:
    """Return why browsers would reject the certificate even from a trusted issuer, or None where they would not."""
    trusting = ssl.create_default_context(cafile=str(certificate))
    trusting.check_hostname = False
    trusting.verify_flags |= VERIFY_X509_PARTIAL_CHAIN
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client, server = trusting.wrap_bio(to_client, to_server), context.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, server, client):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLCertVerificationError as error:
            return error.verify_message
    return None


def open_context(tls: Tls) -> ssl.SSLContext:
    """Load certificate and key, and warn where browsers will reject the certificate.

    Raises:
        ConfigError: They cannot be used.
    """
    context = load(tls)
    reason = browser_objection(context, tls.certificate)
    if reason is not None:
        structlog.get_logger().warning("browsers reject the certificate", path=str(tls.certificate), reason=reason)
    return context


async def follow(tls: Tls, context: ssl.SSLContext) -> None:
    """Reload the files whenever they change; keep the current ones where the new ones cannot be used."""
    read_ns = _changed_ns(tls)
    while True:
        await asyncio.sleep(PERIOD_S)
        now_ns = _changed_ns(tls)
        if now_ns == read_ns:
            continue
        read_ns = now_ns
        try:
            await asyncio.to_thread(open_context, tls)
            context.load_cert_chain(tls.certificate, tls.key)
        except (ConfigError, OSError) as error:
            structlog.get_logger().warning("certificate not reloaded", reason=str(error))
        else:
            structlog.get_logger().info("certificate reloaded", path=str(tls.certificate))


def _changed_ns(tls: Tls) -> tuple[int, ...]:
    try:
        return tls.certificate.stat().st_mtime_ns, tls.key.stat().st_mtime_ns
    except OSError:
        return ()
