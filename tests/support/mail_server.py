"""A real SMTP server that keeps what it gets, and refuses on demand."""

import asyncio
import re
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Self

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from support.program import free_port

EVENT = re.compile(r"\[([0-9A-Z]{26})\]")


class Mailbox:
    """The messages that arrived; with `refuses_attachments` only those without, and while it `hangs` none."""

    def __init__(self) -> None:
        self.messages: list[EmailMessage] = []
        self.refuses_attachments = False
        self.hangs = False

    def event_ids(self) -> list[str]:
        """The ids of the events that the messages tell of, in order, each time."""
        texts = [message.get_body(("plain",)) for message in list(self.messages)]
        return [event for text in texts if text is not None for event in EVENT.findall(text.get_content())]

    async def handle_DATA(self, _: SMTP, __: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        while self.hangs:
            await asyncio.sleep(0.05)
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

    @property
    def url(self) -> str:
        """Apprise's address of it."""
        return f"mailto://127.0.0.1:{self.port}?from=site@example.org&to=duty@example.org&mode=insecure&format=text"

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
