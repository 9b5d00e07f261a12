"""Materialised view of the check-ins of each order. Pure.

A check-in and its rejection may arrive in any order, and repeatedly.
"""

from runtime.model.service import Context, Table
from schemas.api import CheckinState, PortalCheckin, PortalCheckins
from schemas.messages import CheckinRejected, HomeCheckin

MAX_SHOWN = 20
"""Check-ins shown per order, the latest. A limit, because the row is written whole with each."""

_MAX_FIELD = 256
"""Characters shown of a field. The HTTP API accepts at most 64; other producers have no limit."""

CHECK_INS_VIEW = Table("portal-check-ins", PortalCheckins)


def on_check_in(check_in: HomeCheckin, ctx: Context) -> None:
    """Stores the details of a check-in. Its rejection, if known, stays."""
    known = _known(check_in.order_no, check_in.event_id, ctx)
    details = {name: getattr(check_in, name)[:_MAX_FIELD] for name in ("internet_no", "staff_code", "job_status")}
    details["checkin_date"] = check_in.checkin_date
    _put(check_in.order_no, known.model_copy(update=details), ctx)


def on_rejected(rejected: CheckinRejected, ctx: Context) -> None:
    """Stores a rejection. Its check-in may arrive later."""
    known = _known(rejected.order_no, rejected.event_id, ctx)
    rejection = {"status": CheckinState.REJECTED, "reason": rejected.reason[:_MAX_FIELD]}
    _put(rejected.order_no, known.model_copy(update=rejection), ctx)


def _known(order_no: str, event_id: str, ctx: Context) -> PortalCheckin:
    row = ctx.get(CHECK_INS_VIEW, order_no)
    found = (c for c in row.check_ins if c.event_id == event_id) if row is not None else ()
    return next(iter(found), PortalCheckin(event_id=event_id, status=CheckinState.CREATED))


def _put(order_no: str, check_in: PortalCheckin, ctx: Context) -> None:
    row = ctx.get(CHECK_INS_VIEW, order_no) or PortalCheckins(order_no=order_no)
    by_id = {c.event_id: c for c in row.check_ins} | {check_in.event_id: check_in}
    earlier = row.earlier + max(len(by_id) - MAX_SHOWN, 0)
    shown = PortalCheckins(order_no=order_no, check_ins=tuple(by_id.values())[-MAX_SHOWN:], earlier=earlier)
    ctx.put(CHECK_INS_VIEW, order_no, shown)
