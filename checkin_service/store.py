"""Stores check-ins in the database: creation and rejection, both idempotent."""

import logging
import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import select, update

from checkin_service.models import CHECK_INS
from runtime.database.outbox import Outbox
from runtime.database.pool import Database
from runtime.database.rows import insert_or_get
from runtime.errors import SideEffectRejected
from schemas.api import Checkin, CheckinState, NewCheckin
from schemas.identifiers import new_event_id
from schemas.messages import CheckinRejected, HomeCheckin
from schemas.topics import HOME_CHECKINS

log = logging.getLogger(__name__)


class CheckInStore:
    """Check-ins in a database. All methods raise `DatabaseUnavailable`."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    async def create(self, new: NewCheckin, at: datetime) -> tuple[Checkin, bool]:
        """Stores a check-in and its outbox message. Returns the stored check-in, and whether it is new.

        `at` is the instant of `new.checkin_date`.
        """
        fields = {**new.model_dump(), "checkin_date": at}
        row = {**fields, "event_id": new_event_id(), "status": CheckinState.CREATED}
        unique = [name for name in fields if not name.endswith("itude")]
        async with self._database.transaction() as connection:
            stored, is_new = await insert_or_get(connection, CHECK_INS, row, unique)
            checkin = _checkin(stored)
            if is_new:
                message = HomeCheckin(event_id=checkin.event_id, **fields)
                await self._outbox.add(connection, HOME_CHECKINS, message, event_id=checkin.event_id)
            return checkin, is_new

    async def get(self, event_id: uuid.UUID) -> Checkin | None:
        """Reads a check-in."""
        async with self._database.transaction() as connection:
            row = (await connection.execute(select(CHECK_INS).where(CHECK_INS.c.event_id == event_id))).one_or_none()
        return None if row is None else _checkin(row)

    async def reject(self, event_id: str, rejected: CheckinRejected) -> None:
        """Side effect of a rejection. Idempotent."""
        try:
            id_ = uuid.UUID(event_id)
        except ValueError:
            raise SideEffectRejected("the event id is not a UUID") from None
        statement = update(CHECK_INS).where(CHECK_INS.c.event_id == id_, CHECK_INS.c.status != CheckinState.REJECTED)
        statement = statement.values(status=CheckinState.REJECTED, reason=rejected.reason)
        async with self._database.transaction() as connection:
            changed = (await connection.execute(statement)).rowcount
        log.info("check-in rejected event_id=%s repeated=%s", event_id, not changed)


def _checkin(row: Any) -> Checkin:
    return Checkin.model_validate({**row._mapping, "event_id": str(row.event_id)})  # noqa: SLF001 - SQLAlchemy's own
