"""A real SMTP server for tests: it keeps e-mails, or rejects them."""

import asyncio
from contextlib import contextmanager
from email import message_from_bytes, policy

from aiosmtpd.controller import Controller

READY_S = 60
"""Seconds within which the server must start. aiosmtpd's default of 5 s is too short for a busy machine."""


@contextmanager
def serving(mailbox, port):
    """Runs an SMTP server on the loopback interface during a `with` block."""
    controller = Controller(mailbox, hostname="127.0.0.1", port=port, ready_timeout=READY_S)
    controller.start()
    try:
        yield
    finally:
        controller.stop()


class Mailbox:
    """The accepted e-mails of a server, and its answers."""

    def __init__(self) -> None:
        self.letters = []
        self.recipients = []
        """Recipients of the accepted e-mails, from their envelopes."""
        self.refuse = {}
        self.busy = 0
        self.slow_s = 0.0
        """Seconds between receiving an e-mail and acknowledging it."""
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
