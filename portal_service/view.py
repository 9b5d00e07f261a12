"""The check-ins of each order, whichever of a check-in and its rejection is seen first, and however often. Pure."""

from runtime.model.service import Context, Table
from schemas.api import CheckinState, PortalCheckin, PortalCheckins
from schemas.messages import CheckinRejected, HomeCheckin

MAX_SHOWN = 20
"""Check-ins of an order that are shown: the last ones. Each more of them is written again with each that comes."""

_SHOWN = 256
"""Characters of a field that are shown. Over HTTP there are 64 at most; other producers know no bound."""

CHECK_INS_VIEW = Table("portal-check-ins", PortalCheckins)


def on_check_in(check_in: HomeCheckin, ctx: Context) -> None:
    """A check-in. What is known of its rejection stays."""
    known = _known(check_in.order_no, check_in.event_id, ctx)
    said = {name: getattr(check_in, name)[:_SHOWN] for name in ("internet_no", "staff_code", "job_status")}
    said["checkin_date"] = check_in.checkin_date
    _put(check_in.order_no, known.model_copy(update=said), ctx)


def on_rejected(rejected: CheckinRejected, ctx: Context) -> None:
    """A rejection, of a check-in that is known or will be."""
    known = _known(rejected.order_no, rejected.event_id, ctx)
    told = {"status": CheckinState.REJECTED, "reason": rejected.reason[:_SHOWN]}
    _put(rejected.order_no, known.model_copy(update=told), ctx)


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
