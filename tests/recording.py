"""Services whose processor calls are counted by message."""

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Any

from runtime.hosting import ServiceDefinition


class Decisions(Counter[tuple[str, str, str]]):
    """How often each message was processed, by (service, topic, content)."""

    def watch(self, hosted: ServiceDefinition) -> ServiceDefinition:
        """The service with counted processors."""
        service = hosted.service
        inputs = tuple(
            dataclasses.replace(i, processor=self._counted(service.name, i.topic, i.processor)) for i in service.inputs
        )
        return dataclasses.replace(hosted, service=dataclasses.replace(service, inputs=inputs))

    def _counted(self, service: str, topic: Any, processor: Callable[..., None]) -> Callable[..., None]:
        def counted(value: Any, ctx: Any) -> None:
            self[service, topic.name, value.to_json().decode()] += 1
            processor(value, ctx)

        return counted

    def twice(self) -> list[tuple[str, str, str]]:
        """Messages that were processed more than once."""
        return [message for message, times in self.items() if times > 1]
