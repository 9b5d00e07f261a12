"""A call that runs beside a stream of a handler, which looks at it now and then instead of waiting."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class BackgroundCall(Generic[T]):
    """A call that has begun. It ends with the handler, which closes it."""

    def __init__(self, call: Coroutine[Any, Any, T]) -> None:
        self._task = asyncio.create_task(call)

    @property
    def done(self) -> bool:
        return self._task.done()

    def result(self) -> T:
        """The result of a call that is done. Raises its error."""
        return self._task.result()

    def close(self) -> None:
        """Cancels the call."""
        self._task.cancel()
