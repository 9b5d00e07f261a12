"""A mail server that delivers to a folder: where the letters of `orders up` end."""

import mailbox
from collections.abc import Callable
from contextlib import ExitStack
from email.message import Message
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Mailbox

from ecosystem.embedded.ports import claimed

_PORT = 1025
_START_S = 20.0

Delivered = Callable[[Message, Path], None]


class MailSink:
    """An SMTP server on the loopback interface, in a thread of its own, which keeps every letter and sends none.

    Arguments:
        folder: a Maildir; letters are files below its `new`.
        delivered: told of each letter and its file, in that thread.
    """

    def __init__(self, folder: Path, delivered: Delivered = lambda letter, path: None) -> None:
        self.folder = folder
        self._delivered = delivered
        self.port = 0
        self._stack = ExitStack()

    @property
    def new(self) -> Path:
        """The folder of the letters that nobody has read."""
        return self.folder / "new"

    def __enter__(self) -> Self:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        mailbox.Maildir(self.folder, create=True)
        handler = _Maildir(self.folder, self._delivered)
        with ExitStack() as stack:
            [self.port] = stack.enter_context(claimed(1, _PORT))
            controller: Any = Controller(handler, hostname="127.0.0.1", port=self.port, ready_timeout=_START_S)
            controller.start()
            stack.callback(controller.stop)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


class _Maildir(Mailbox):  # type: ignore[misc]
    def __init__(self, folder: Path, delivered: Delivered) -> None:
        super().__init__(str(folder))
        self._new = folder / "new"
        self._told = delivered

    def handle_message(self, message: Message) -> None:
        self._told(message, self._new / self.mailbox.add(message))
