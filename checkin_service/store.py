"""Check-ins in the database: taken once, rejected once, however often that is asked for."""

import logging
import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert

from checkin_service.models import CHECK_INS
from runtime.database.outbox import Outbox
from runtime.database.pool import Database
from runtime.errors import SideEffectRejected
from schemas.api import Checkin, CheckinState, NewCheckin
from schemas.identifiers import new_event_id
from schemas.messages import CheckinRejected, HomeCheckin
from schemas.topics import HOME_CHECKINS

log = logging.getLogger(__name__)


class CheckIns:
    """The check-ins of a database. All methods raise `DatabaseUnavailable`."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    async def take(self, new: NewCheckin, at: datetime) -> tuple[Checkin, bool]:
        """The check-in as it is kept, and whether it is new: then its message is kept with it.

        `at` is the moment that `new.checkin_date` names.
        """
        said = {**new.model_dump(), "checkin_date": at}
        row = {**said, "event_id": new_event_id(), "status": CheckinState.CREATED}
        taking = insert(CHECK_INS).values(row).on_conflict_do_nothing().returning(CHECK_INS)
        async with self._database.transaction() as connection:
            taken = (await connection.execute(taking)).one_or_none()
            if taken is not None:
                event_id = str(taken.event_id)
                message = HomeCheckin(event_id=event_id, **said)
                await self._outbox.add(connection, HOME_CHECKINS, message, event_id=event_id)
                return _checkin(taken), True
            same = (CHECK_INS.c[name] == said[name] for name in said if not name.endswith("itude"))
            return _checkin((await connection.execute(select(CHECK_INS).where(*same))).one()), False

    async def get(self, event_id: uuid.UUID) -> Checkin | None:
        """A check-in and what became of it."""
        async with self._database.transaction() as connection:
            row = (await connection.execute(select(CHECK_INS).where(CHECK_INS.c.event_id == event_id))).one_or_none()
        return None if row is None else _checkin(row)

    async def reject(self, event_id: str, rejected: CheckinRejected) -> None:
        """The effect of a rejection. One that is rejected already stays as it is."""
        try:
            id_ = uuid.UUID(event_id)
        except ValueError:
            raise SideEffectRejected("the event id is none of ours: it is no UUID") from None
        change = update(CHECK_INS).where(CHECK_INS.c.event_id == id_, CHECK_INS.c.status != CheckinState.REJECTED)
        change = change.values(status=CheckinState.REJECTED, reason=rejected.reason)
        async with self._database.transaction() as connection:
            changed = (await connection.execute(change)).rowcount
        log.info("check-in rejected event_id=%s again=%s", event_id, not changed)


def _checkin(row: Any) -> Checkin:
    return Checkin.model_validate({**row._mapping, "event_id": str(row.event_id)})  # noqa: SLF001 - SQLAlchemy's own
