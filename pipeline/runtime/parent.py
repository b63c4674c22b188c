"""The first step of a worker: end with its supervisor.

In: standard input, the socket that the supervisor made (see `runtime.control`).  Imports the standard library alone: a
supervisor that is killed before this step leaves an orphan.
"""

import ctypes
import os
import signal
import socket
import struct
import sys

PR_SET_PDEATHSIG = 1
_UCRED = struct.Struct("3i")  # process, user and group id


def die_with_supervisor() -> None:
    """Request SIGTERM from the kernel at the supervisor's death, and exit where it has died already.

    SIGINT and SIGHUP are ignored: a terminal sends them to every process, and the supervisor stops the workers in
    order.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    supervisor = _creator_of_standard_input()
    if supervisor is not None and os.getppid() != supervisor:
        sys.exit(1)


def _creator_of_standard_input() -> int | None:
    """Return the id of the process that made the socket pair; None where standard input is no socket."""
    try:
        with socket.socket(fileno=os.dup(0)) as end:
            return int(_UCRED.unpack(end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))[0])
    except OSError:
        return None
