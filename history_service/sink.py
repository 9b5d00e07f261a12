"""What the history stores: every record of every public topic, by the bulk sink of the runtime."""

from functools import partial

from history_service import projection, store
from history_service.maintenance import Maintenance
from history_service.stages import TOPIC_STAGES
from runtime.common.clock import utc_now
from runtime.model.sink import Sink


def sink(maintenance: Maintenance) -> Sink[projection.Rows]:
    """What the history stores, in the database that the maintenance is of."""
    return Sink(
        topics=tuple(TOPIC_STAGES),
        prepare=partial(projection.project, clock=utc_now),
        prepare_raw=partial(projection.project_raw, clock=utc_now),
        write=store.write,
        before=maintenance.make_partitions,
    )
