"""Letters that a server has no way to take."""

from email.message import EmailMessage

import pytest
from aiosmtpd.controller import Controller

from ecosystem.ports import free_ports
from runtime.post_office import PostOffice
from runtime.service import RefusedForGood
from runtime.settings import Settings


class Sink:
    def __init__(self):
        self.taken = []

    async def handle_DATA(self, server, session, envelope):  # noqa: N802
        self.taken += envelope.rcpt_tos
        return "250 OK"


@pytest.fixture
def sink():
    return Sink()


@pytest.fixture
def port(sink):
    """Of a real server that knows ASCII addresses only."""
    [port] = free_ports(1)
    controller = Controller(sink, hostname="127.0.0.1", port=port, enable_SMTPUTF8=False, ready_timeout=60)
    controller.start()
    yield port
    controller.stop()


async def test_an_address_beyond_ascii_is_refused_for_good_by_a_server_that_knows_none(sink, port):
    office = PostOffice(Settings(smtp_port=port))
    letters = {}
    for to in ("max@bücher.example", "franz@example.org"):
        letters[to] = EmailMessage()
        letters[to]["From"], letters[to]["To"] = "orders@example.com", to
        letters[to].set_content("Hello")
    async with office.opened(None):
        with pytest.raises(RefusedForGood, match="SMTPUTF8"):
            await office.send("k", letters["max@bücher.example"])
        await office.send("k", letters["franz@example.org"])
    assert sink.taken == ["franz@example.org"]
