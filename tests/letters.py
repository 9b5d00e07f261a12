"""A real SMTP server's side of a test: it keeps letters, or refuses them."""

import asyncio
from contextlib import contextmanager
from email import message_from_bytes, policy

from aiosmtpd.controller import Controller

READY_S = 60
"""How long a server may take to answer; aiosmtpd's own 5 s are too short for a machine that stalls."""


@contextmanager
def serving(mailbox, port):
    """An SMTP server on the loopback interface for as long as the block lasts."""
    controller = Controller(mailbox, hostname="127.0.0.1", port=port, ready_timeout=READY_S)
    controller.start()
    try:
        yield
    finally:
        controller.stop()


class Mailbox:
    """What the server took, and how it is to answer."""

    def __init__(self) -> None:
        self.letters = []
        self.recipients = []
        """Of each letter, by its envelope."""
        self.refuse = {}
        self.busy = 0
        self.slow_s = 0.0
        """Between having a letter and saying so."""
        self.connections = 0

    async def handle_EHLO(self, server, session, envelope, hostname, responses):  # noqa: N802
        self.connections += 1
        session.host_name = hostname
        return responses

    async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802
        if address in self.refuse:
            return self.refuse[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):  # noqa: N802
        if self.busy:
            self.busy -= 1
            return "451 try again"
        self.recipients.append(envelope.rcpt_tos)
        self.letters.append(message_from_bytes(envelope.content, policy=policy.default))
        await asyncio.sleep(self.slow_s)
        return "250 taken"

    def of(self, order_id):
        return [letter for letter in self.letters if letter["X-Order-Id"] == order_id]
