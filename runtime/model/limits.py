"""Size limits of topics, discovered from the rejections of the broker."""

from aiokafka.errors import MessageSizeTooLargeError

from runtime.errors import MessageTooLarge


class SizeLimits:
    """The discovered limits. Brokers limit batches, so after the first rejection messages are sent one by one."""

    def __init__(self) -> None:
        self._singly: set[str] = set()
        self._most: dict[str, int] = {}
        self.revision = 0
        """Incremented when a limit is discovered or lowered."""

    def __bool__(self) -> bool:
        return bool(self._most)

    def singly(self, topic: str) -> bool:
        """Whether messages to this topic are to be sent one by one."""
        return topic in self._singly

    def most(self, topic: str) -> int | None:
        """Largest size of a message, in bytes of key, value and headers; `None` if unknown."""
        return self._most.get(topic)

    def refused(self, topic: str, sizes: list[int]) -> MessageSizeTooLargeError:
        """Records that the broker rejected a batch of messages of these sizes as too large. Returns the error to
        raise."""
        if len(sizes) > 1:
            self.revision += topic not in self._singly
            self._singly.add(topic)
            return MessageSizeTooLargeError(f"topic {topic}: {len(sizes)} messages of {sum(sizes)} bytes together")
        [size] = sizes
        known = self._most.get(topic)
        if known is None or size <= known:
            self._most[topic] = size - 1
            self.revision += 1
        return MessageSizeTooLargeError(f"topic {topic}: a message of {size} bytes")

    def check(self, topic: str, size: int) -> None:
        """Raises `MessageTooLarge` if a message of this size is known to be rejected."""
        most = self._most.get(topic)
        if most is not None and size > most:
            raise MessageTooLarge(f"a message of {size} bytes to {topic}, which accepts {most} at most")
