"""Compensation: a check-in that counts for nothing is rejected here as well."""

from checkin_service.store import CheckIns
from runtime.model.service import Context, Processor, SideEffect
from schemas.messages import CheckinRejected


def build_compensation(check_ins: CheckIns) -> tuple[SideEffect[CheckinRejected], Processor[CheckinRejected]]:
    """The effect that rejects a check-in in the database, and the processor that asks for it."""
    effect = SideEffect("rejection", CheckinRejected, check_ins.reject)

    def on_rejected(rejected: CheckinRejected, ctx: Context) -> None:
        ctx.enqueue(effect, rejected.event_id, rejected)

    return effect, on_rejected
