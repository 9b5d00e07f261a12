"""Compensation: marks a check-in REJECTED in the database when fulfilment rejects it."""

from checkin_service.store import CheckInStore
from runtime.model.service import Context, Processor, SideEffect
from schemas.messages import CheckinRejected


def build_compensation(check_ins: CheckInStore) -> tuple[SideEffect[CheckinRejected], Processor[CheckinRejected]]:
    """Returns the side effect that rejects a check-in, and the processor that enqueues it."""
    effect = SideEffect("rejection", CheckinRejected, check_ins.reject)

    def on_rejected(rejected: CheckinRejected, ctx: Context) -> None:
        ctx.enqueue(effect, rejected.event_id, rejected)

    return effect, on_rejected
