"""A real SMTP server that keeps what it gets, and refuses on demand."""

from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Self

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from support.program import free_port


class Mailbox:
    """The messages that arrived; with `refuses_attachments` only those without."""

    def __init__(self) -> None:
        self.messages: list[EmailMessage] = []
        self.refuses_attachments = False

    async def handle_DATA(self, _: SMTP, __: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        message = message_from_bytes(envelope.content, policy=policy.default)
        if self.refuses_attachments and [*message.iter_attachments()]:
            return "552 message too large"
        self.messages.append(message)
        return "250 OK"


class MailServer:
    """`with MailServer() as server:`; it comes and goes on one port."""

    def __init__(self) -> None:
        self.mailbox = Mailbox()
        self.port = free_port()
        self._controller: Controller | None = None

    def come(self) -> None:
        self._controller = Controller(self.mailbox, hostname="127.0.0.1", port=self.port)
        self._controller.start()

    def go(self) -> None:
        if self._controller is not None:
            self._controller.stop()
            self._controller = None

    def __enter__(self) -> Self:
        self.come()
        return self

    def __exit__(self, *_: object) -> None:
        self.go()
