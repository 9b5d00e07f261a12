"""How large a message a topic takes, as the broker has told by refusing one: nothing is known before it has."""

from aiokafka.errors import MessageSizeTooLargeError

from runtime.errors import MessageTooLarge


class SizeLimits:
    """What has been learned of each topic. A broker's limit is on batches: so it is first told apart by message."""

    def __init__(self) -> None:
        self._singly: set[str] = set()
        self._most: dict[str, int] = {}
        self.lessons = 0
        """Times something new was learned."""

    def __bool__(self) -> bool:
        return bool(self._most)

    def singly(self, topic: str) -> bool:
        """Whether each message to this topic is to be sent by itself."""
        return topic in self._singly

    def most(self, topic: str) -> int | None:
        """Bytes of key, value and headers that a message may have; `None` if that is not known."""
        return self._most.get(topic)

    def refused(self, topic: str, sizes: list[int]) -> MessageSizeTooLargeError:
        """The broker refused these messages, sent together, as too large. Returns what to raise."""
        if len(sizes) > 1:
            self.lessons += topic not in self._singly
            self._singly.add(topic)
            return MessageSizeTooLargeError(f"topic {topic}: {len(sizes)} messages of {sum(sizes)} bytes together")
        [size] = sizes
        known = self._most.get(topic)
        if known is None or size <= known:
            self._most[topic] = size - 1
            self.lessons += 1
        return MessageSizeTooLargeError(f"topic {topic}: a message of {size} bytes")

    def check(self, topic: str, size: int) -> None:
        """Raises `MessageTooLarge`."""
        most = self._most.get(topic)
        if most is not None and size > most:
            raise MessageTooLarge(f"a message of {size} bytes to {topic}, which takes no more than {most}")
