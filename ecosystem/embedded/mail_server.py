"""An SMTP server that delivers every e-mail to a folder."""

import mailbox
from collections.abc import Callable
from contextlib import ExitStack
from email.message import Message
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Mailbox

from ecosystem.embedded.ports import reserved_ports

_PORT = 1025
_START_S = 20.0

DeliveryCallback = Callable[[Message, Path], None]
"""Called with each e-mail and its file."""


class MailSink:
    """An SMTP server on the loopback interface, in a thread of its own. It keeps every e-mail and sends none.

    Arguments:
        folder: a Maildir; e-mails are files below its `new`.
        on_delivered: called with each e-mail, in that thread.
    """

    def __init__(self, folder: Path, on_delivered: DeliveryCallback = lambda email, path: None) -> None:
        self.folder = folder
        self._on_delivered = on_delivered
        self.port = 0
        self._stack = ExitStack()

    @property
    def new(self) -> Path:
        """The folder of unread e-mails."""
        return self.folder / "new"

    def __enter__(self) -> Self:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        mailbox.Maildir(self.folder, create=True)
        handler = _Maildir(self.folder, self._on_delivered)
        with ExitStack() as stack:
            [self.port] = stack.enter_context(reserved_ports(1, _PORT))
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
    def __init__(self, folder: Path, on_delivered: DeliveryCallback) -> None:
        super().__init__(str(folder))
        self._new = folder / "new"
        self._on_delivered = on_delivered

    def handle_message(self, message: Message) -> None:
        self._on_delivered(message, self._new / self.mailbox.add(message))
