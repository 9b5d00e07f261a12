"""How long the checks of a running system wait for what does not answer."""

import asyncio

from rich.console import Console

from ecosystem.smoke import report
from ecosystem.smoke.checks import _page
from ecosystem.smoke.report import Check


async def test_a_later_page_that_refuses_connections_fails_before_the_time_is_over(unused_tcp_port, monkeypatch):
    monkeypatch.setattr(report, "_REFUSED_S", 0.1)

    async def passes():
        return "there"

    check = Check("a page", lambda: _page(f"http://127.0.0.1:{unused_tcp_port}/"), "look there")
    console = Console(record=True)
    async with asyncio.timeout(30):
        assert not await report.run([Check("first", passes, ""), check], 3600, console)
    assert "look there" in console.export_text()
