"""The pipeline: five services between the topics `start` and `finish`. Each does one simple thing to numbers.

A service is a processor with its topics. The runtime polls a batch, calls the processors, and commits their output and
the offsets of the input in one transaction of Kafka. So each message has its output exactly once, whatever is killed.
"""

from collections.abc import Iterable
from itertools import accumulate
from typing import Annotated, Self

from pydantic import Field

from runtime.model.service import Context, Input, Service
from schemas.topics import WEEK, Topic
from schemas.wire import Int64, Message

Id = Annotated[str, Field(min_length=1, max_length=128)]


class Numbers(Message):
    """A message of every topic here: `{"id": "a1b2c3-1", "numbers": [76452, 61211234, 8243724]}`."""

    id: Id
    numbers: Annotated[tuple[Int64, ...], Field(min_length=1, max_length=1000)]

    def become(self, numbers: Iterable[int]) -> Self:
        """The message of the next stage: other numbers under the same id, and so under the same key."""
        return self.model_copy(update={"numbers": tuple(numbers)})


# A topic: name, message, key of a message, its writer, how long Kafka keeps it.
START = Topic("start", Numbers, lambda message: message.id, "generator", WEEK)
SORTED = Topic("sorted", Numbers, lambda message: message.id, "sort", WEEK)
DIGIT_SUMS = Topic("digit-sums", Numbers, lambda message: message.id, "digits", WEEK)
SQUARES = Topic("squares", Numbers, lambda message: message.id, "square", WEEK)
RUNNING_TOTALS = Topic("running-totals", Numbers, lambda message: message.id, "accumulate", WEEK)
FINISH = Topic("finish", Numbers, lambda message: message.id, "total", WEEK)


# A processor: called with each message of the input. What it sends takes effect if the batch is committed.
def sort(message: Numbers, ctx: Context) -> None:
    """Sorts the numbers: 76452, 61211234, 8243724 become 76452, 8243724, 61211234."""
    ctx.send(SORTED, message.become(sorted(message.numbers)))


def add_digits(message: Numbers, ctx: Context) -> None:
    """Replaces each number by the sum of its digits: 24, 30, 20."""
    ctx.send(DIGIT_SUMS, message.become(sum(map(int, str(abs(number)))) for number in message.numbers))


def square(message: Numbers, ctx: Context) -> None:
    """Squares each number: 576, 900, 400."""
    ctx.send(SQUARES, message.become(number * number for number in message.numbers))


def add_up(message: Numbers, ctx: Context) -> None:
    """Replaces each number by the sum up to it: 576, 1476, 1876."""
    ctx.send(RUNNING_TOTALS, message.become(accumulate(message.numbers)))


def total(message: Numbers, ctx: Context) -> None:
    """Adds all numbers: 3928."""
    ctx.send(FINISH, message.become([sum(message.numbers)]))


# A service: its name, inputs with their processors, and outputs.
STAGES = (
    Service("sort", inputs=(Input(START, sort),), outputs=(SORTED,)),
    Service("digits", inputs=(Input(SORTED, add_digits),), outputs=(DIGIT_SUMS,)),
    Service("square", inputs=(Input(DIGIT_SUMS, square),), outputs=(SQUARES,)),
    Service("accumulate", inputs=(Input(SQUARES, add_up),), outputs=(RUNNING_TOTALS,)),
    Service("total", inputs=(Input(RUNNING_TOTALS, total),), outputs=(FINISH,)),
)

TOPICS = (START, *(output for stage in STAGES for output in stage.outputs))
"""All topics, in the order of the pipeline."""
