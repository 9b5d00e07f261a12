"""PostgreSQL and a mail server for the services of a campaign, and their failures."""

import asyncio
import mailbox
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from subprocess import Popen
from typing import Self

from ecosystem.embedded import processes
from ecosystem.embedded.ports import free_ports
from ecosystem.embedded.postgres import Postgres
from ecosystem.services import DATABASES

_TAKES_MAIL_S = 120.0


class Surroundings:
    """Databases and mail server of a campaign. Both are killed with SIGKILL and restarted with their data.

    Arguments:
        folder: the parent of data, logs and e-mails.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._postgres = Postgres(folder / "postgres")
        [self._smtp_port] = free_ports(1)
        self._smtp: Popen[bytes] | None = None
        self._turn = asyncio.Lock()
        self._mail_turn = asyncio.Lock()

    @property
    def mail(self) -> Path:
        """A maildir with all delivered e-mails."""
        return self._folder / "mail"

    async def __aenter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        mailbox.Maildir(self.mail, create=True)
        async with AsyncExitStack() as stack:
            # Child processes end with the thread that started them: this thread lives as long as they do.
            self._thread = stack.enter_context(ThreadPoolExecutor(1))
            await self._do(self._postgres.start)
            stack.push_async_callback(self._do, self._postgres.stop)
            self.settings = {url.lower(): self._postgres.database(name) for name, url in DATABASES.items()}
            self.settings["smtp_port"] = str(self._smtp_port)
            await self._take_mail()
            stack.push_async_callback(self._do, self._kill_mail)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    async def lose_databases(self, seconds: float) -> None:
        """Kills PostgreSQL with SIGKILL and restarts it after a number of seconds."""
        async with self._turn:
            await self._do(self._postgres.kill)
            try:
                await asyncio.sleep(seconds)
            finally:
                await self._do(self._postgres.restart)

    async def lose_mail(self, seconds: float) -> None:
        """Kills the mail server with SIGKILL and restarts it after a number of seconds."""
        async with self._mail_turn:
            await self._do(self._kill_mail)
            try:
                await asyncio.sleep(seconds)
            finally:
                await self._take_mail()

    async def _do(self, what: Callable[[], object]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, what)

    async def _take_mail(self) -> None:
        await self._do(self._spawn_mail)
        async with asyncio.timeout(_TAKES_MAIL_S):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self._smtp_port)
                except OSError:
                    await asyncio.sleep(0.05)
                else:
                    writer.close()
                    return

    def _spawn_mail(self) -> None:
        listen = ["--nosetuid", "--listen", f"127.0.0.1:{self._smtp_port}"]
        command = [sys.executable, "-m", "aiosmtpd", *listen, "--class", "aiosmtpd.handlers.Mailbox", str(self.mail)]
        with (self._folder / "smtp.log").open("ab") as log:
            self._smtp = processes.spawn(command, log)

    def _kill_mail(self) -> None:
        if self._smtp is not None:
            processes.kill(self._smtp)
