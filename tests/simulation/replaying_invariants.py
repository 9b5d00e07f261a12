"""The invariants of replays, and of orders that were decided anew. Each yields one sentence per violation."""

from collections import Counter

from schemas.messages import ATTEMPT_SEPARATOR, FIRST_ATTEMPT, OrderState, ValidationResult
from tests.simulation import messenger

PENDING = messenger.build(None).service.pending.changelog


def split_key(key):
    """Order id and attempt of the key of a row."""
    order_id, _, attempt = key.partition(ATTEMPT_SEPARATOR)
    return order_id, int(attempt or FIRST_ATTEMPT)


def earlier_attempts_failed(outcome):
    """Every attempt before the last one has failed, once: no other order is decided anew."""
    most = 1 if outcome.world.schedule.exactly_once else 10**6
    for order_id, last in sorted(outcome.last.items()):
        for number in outcome.attempts.accepted_before(order_id, last):
            states = [order.state for order, _ in outcome.attempts.announced[order_id, number]]
            if set(states) != {OrderState.FAILED} or len(states) > most:
                yield f"attempt {number} of {order_id} was announced {', '.join(states)}, and {last} came after it"


def earlier_attempts_hold_nothing(outcome):
    """Only the last attempt of an order holds pieces, neither one before nor one that was never accepted."""
    for key, row in sorted(outcome.all_reservations.items()):
        order_id, number = split_key(key)
        if row.held and number != outcome.last.get(order_id):
            last = outcome.last.get(order_id)
            yield f"attempt {number} of {order_id} holds {row.held} of {row.product}, attempt {last} counts"


def reasons_are_verdicts(outcome):
    """An attempt fails for reasons that are verdicts of this attempt, or by its deadline."""
    for (order_id, number), announced in sorted(outcome.attempts.announced.items()):
        for order, _ in announced:
            if order.state is not OrderState.FAILED:
                continue
            for text in order.reasons or ():
                check, _, reason = text.partition(": ")
                said = outcome.all_verdicts[order_id, number, check]
                failed = {v.reason for v in said if v.validation_result is not ValidationResult.PASS}
                if "no verdict within" not in reason and reason not in failed:
                    yield f"attempt {number} of {order_id} failed as {text}, which is no verdict on it"


def messages_of_replays_left_out(outcome):
    """What follows from a replay is delivered to nobody: not after a repartition, nor after a timer."""
    for what, count in sorted(_delivered(outcome).items()):
        if not outcome.attempts.asked[what]:
            yield f"{_described(what)} was delivered {count} times, though only by a replay"


def unmarked_messages_delivered(outcome):
    """Every other message is delivered once."""
    if not outcome.runs(messenger.NAME):
        return
    delivered = _delivered(outcome)
    for what in sorted(delivered.keys() | outcome.attempts.asked.keys()):
        if delivered[what] != outcome.attempts.asked[what]:
            due = outcome.attempts.asked[what]
            yield f"{_described(what)} was delivered {delivered[what]} times, {due} were due"


def _delivered(outcome):
    """How often the messenger enqueued each state of an attempt."""
    found = Counter()
    for log in outcome.world.broker.topic(PENDING):
        for entry in log.committed():
            if entry.value is not None:
                order = messenger.payload_of(entry.value)
                found[order.id, order.attempt_number, order.state] += 1
    return found


def _described(what):
    order_id, number, state = what
    return f"{state} of {order_id}, attempt {number},"
