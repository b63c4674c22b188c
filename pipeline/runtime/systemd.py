"""Notification of systemd, where it started the supervisor (sd_notify(3)): ready, watchdog, stopping."""

import os
import socket


def notify(state: str) -> bool:
    """Send `READY=1`, `WATCHDOG=1` or `STOPPING=1`; return False where it must be sent again.

    Without $NOTIFY_SOCKET nothing is sent.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return True
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
        try:
            sender.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
        except OSError:  # it is busy or gone
            return False
    return True
