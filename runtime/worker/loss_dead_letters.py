"""Dead letters of lost changelog records, for operators and for the audit.

Their topics are created with the first loss.
"""

from collections.abc import Awaitable, Callable, Sequence

from runtime.common.clock import utc_now
from runtime.common.settings import Settings
from runtime.data_loss.losses import Loss
from runtime.kafka.topics import ensure_topics
from runtime.model.dead_letters import dead_letter
from runtime.model.records import Write
from runtime.model.topology import Topology
from schemas.topics import DEAD_LETTERS, FORTNIGHT


class LossDeadLetters:
    """Writes losses of changelogs to `<changelog>.dead-letters`.

    Arguments:
        settings: broker and prefix.
        topology: the services with the tables.
        write: produces records; returns once they are acknowledged.
    """

    def __init__(
        self, settings: Settings, topology: Topology, write: Callable[[Sequence[Write]], Awaitable[None]]
    ) -> None:
        self._settings = settings
        self._holders = {topology.tables[name].changelog: service.name for name, service in topology.holders.items()}
        self._write = write

    async def keep(self, loss: Loss) -> None:
        """Returns once the dead letter is acknowledged. Two workers, or one after a crash, may repeat it."""
        await ensure_topics(self._settings, {loss.topic + DEAD_LETTERS: FORTNIGHT.config()})
        record = loss.record()
        await self._write([dead_letter(record, self._holders.get(loss.topic, ""), loss.description, utc_now())])
