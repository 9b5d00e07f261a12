"""A mail server that delivers to a folder: where the letters of `orders up` end."""

import mailbox
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Mailbox

from ecosystem.ports import next_free_ports

_PORT = 1025


class MailSink:
    """An SMTP server on the loopback interface, in a thread of its own, which keeps every letter and sends none.

    Arguments:
        folder: a Maildir; letters are files below its `new`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        [self.port] = next_free_ports(1, _PORT)

    def __enter__(self) -> Self:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        mailbox.Maildir(self.folder, create=True)
        self._controller: Any = Controller(Mailbox(str(self.folder)), hostname="127.0.0.1", port=self.port)
        self._controller.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._controller.stop()
