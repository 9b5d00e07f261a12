"""The generator: makes inputs at the rate that the settings give."""

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator
from random import Random

from pydantic import Field

from examples.numbers_pipeline.settings import NumbersSettings
from examples.numbers_pipeline.stages import Id, Numbers

_LARGEST = 99_999_999


class _Input(Numbers):
    """A message as a person writes it: the id may be missing."""

    id: Id = Field(default_factory=lambda: secrets.token_hex(3))


async def generate(settings: NumbersSettings, random: Random) -> AsyncIterator[Numbers]:
    """Yields each input when it is due. Without `numbers_count` it never ends."""
    run, loop = secrets.token_hex(3), asyncio.get_running_loop()
    due = loop.time()
    for number in itertools.count(1):
        await asyncio.sleep(max(0.0, due - loop.time()))
        numbers = tuple(random.randint(0, _LARGEST) for _ in range(settings.numbers_size))
        yield Numbers(id=f"{run}-{number}", numbers=numbers)
        if number == settings.numbers_count:
            return
        due += pause_s(settings, random)


def with_id(text: str) -> Numbers:
    """The message of an input such as `{"numbers": [76452]}`. Raises `ValidationError`, which names the field."""
    return _Input.model_validate_json(text)


def pause_s(settings: NumbersSettings, random: Random) -> float:
    """Seconds to the next input: 1 / rate on average, more or less by up to the jitter."""
    return (1 + settings.numbers_jitter * random.uniform(-1, 1)) / settings.numbers_rate
