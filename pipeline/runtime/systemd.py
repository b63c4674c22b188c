"""What the supervisor tells systemd, where that started it (sd_notify(3)): ready, alive, stopping."""

import os
import socket


def notify(state: str) -> bool:
    """`READY=1`, `WATCHDOG=1`, `STOPPING=1`.  False: it was not taken, say it again.

    Without $NOTIFY_SOCKET nobody listens, and nothing happens.
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
