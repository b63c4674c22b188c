"""A server that tests start and kill."""

import socket
from abc import ABC, abstractmethod
from typing import Self


class Server(ABC):
    """Runs from entry to exit."""

    host = "127.0.0.1"
    port: int

    @abstractmethod
    def start(self) -> None:
        """Return once it listens."""

    @abstractmethod
    def kill(self) -> None:
        """End it, whatever it does."""

    def listens(self) -> bool:
        try:
            socket.create_connection((self.host, self.port), 1).close()
        except OSError:
            return False
        return True

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
