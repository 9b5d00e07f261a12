"""Size limits of topics, discovered from the rejections of the broker."""

from aiokafka.errors import MessageSizeTooLargeError

from runtime.errors import MessageTooLarge


class SizeLimits:
    """The discovered limits. A broker limits batches, so after a first rejection messages are sent one by one."""

    def __init__(self) -> None:
        self._one_by_one: set[str] = set()
        self._max_bytes: dict[str, int] = {}
        self.revision = 0
        """Incremented when a limit is discovered or lowered."""

    def __bool__(self) -> bool:
        return bool(self._max_bytes)

    def one_by_one(self, topic: str) -> bool:
        """Whether messages to this topic are sent one by one."""
        return topic in self._one_by_one

    def max_bytes(self, topic: str) -> int | None:
        """Largest size of a message, in bytes of key, value and headers; `None` if unknown."""
        return self._max_bytes.get(topic)

    def rejected(self, topic: str, sizes: list[int]) -> MessageSizeTooLargeError:
        """Records that the broker rejected a batch as too large. Returns the error to raise.

        `sizes`: bytes of each message of the batch.
        """
        if len(sizes) > 1:
            self.revision += topic not in self._one_by_one
            self._one_by_one.add(topic)
            return MessageSizeTooLargeError(f"topic {topic}: {len(sizes)} messages of {sum(sizes)} bytes together")
        [size] = sizes
        known = self._max_bytes.get(topic)
        if known is None or size <= known:
            self._max_bytes[topic] = size - 1
            self.revision += 1
        return MessageSizeTooLargeError(f"topic {topic}: a message of {size} bytes")

    def check(self, topic: str, size: int) -> None:
        """Raises `MessageTooLarge` if a message of `size` bytes is known to be rejected."""
        limit = self._max_bytes.get(topic)
        if limit is not None and size > limit:
            raise MessageTooLarge(f"a message of {size} bytes to {topic}, which accepts {limit} at most")
