"""The invariants of a run that has come to rest. Each yields one sentence per violation."""

from collections import Counter, defaultdict
from decimal import Decimal

from orders_service.settings import OrdersSettings
from orders_service.state import ORDERS_VIEW
from runtime.model.service import RejectedSideEffect
from schemas.messages import (
    FIRST_ATTEMPT,
    BuiltInCheck,
    CheckinRejected,
    Fulfilled,
    HomeCheckin,
    OrderState,
    OrderValidation,
    Payment,
    ValidationResult,
)
from schemas.sessions import session_value
from schemas.topics import (
    CHECKIN_REJECTIONS,
    DEAD_LETTERS,
    FULFILMENTS,
    HOME_CHECKINS,
    ORDER_VALIDATIONS,
    ORDERS,
    PAYMENTS,
)
from tests.simulation import newcomer
from tests.simulation.attempts import Attempts
from tests.simulation.broker import Broker
from tests.simulation.cancelling_invariants import (
    answers_hold,
    cancelled_once,
    cancelled_or_shipped,
    checks_everywhere,
    refunded,
    refunded_once,
    released,
)
from tests.simulation.courier import DEAD_UNTIL_S
from tests.simulation.courier import build as courier
from tests.simulation.replaying import REPLAYED
from tests.simulation.replaying_invariants import (
    earlier_attempts_failed,
    earlier_attempts_hold_nothing,
    messages_of_replays_left_out,
    reasons_are_verdicts,
    split_key,
    unmarked_messages_delivered,
)
from validators.fraud.state import CUSTOMERS
from validators.inventory.state import RESERVATIONS, STOCK

TERMINAL = (OrderState.VALIDATED, OrderState.FAILED)
LATE = "no verdict within"
SLACK_S = 30.0
HARD = {"crash", "wipe", "pause", "cut", "delay", "storm"}
"""Faults that may end a worker, or its membership, before it has acknowledged its side effects."""


class Outcome:
    """The contents of the logs at the end of a run, as a read_committed client reads them."""

    def __init__(self, world):
        self.world = world
        self._rows = {}
        self.attempts = attempts = Attempts(world.broker)
        self.orders = attempts.orders
        self.views = self.table(ORDERS_VIEW)
        self.stock = self.table(STOCK)
        self.all_reservations = self.table(RESERVATIONS.rows)
        """By order, and attempt from the second on."""
        self.customers = self.table(CUSTOMERS)
        self.all_verdicts = defaultdict(list)
        """By order, attempt and check, without those sent again by an operator."""
        for verdict in self.messages(ORDER_VALIDATIONS.name, OrderValidation):
            self.all_verdicts[verdict.order_id, verdict.attempt_number, verdict.check_type].append(verdict)
        self._take_last_attempts()

    def _take_last_attempts(self):
        """Collects the facts of the last attempt of each order. Those before: `replaying_invariants`."""
        attempts, ids = self.attempts, {id_ for id_, _ in (*self.attempts.written, *self.attempts.announced)}
        self.last = {id_: attempts.last(id_, self.views.get(id_)) for id_ in sorted(ids)}
        self.created = {id_: attempts.written[id_, self.last[id_]] for id_ in sorted(self.orders)}
        self.terminal, self.cancelled, self.shipped = defaultdict(list), defaultdict(list), Counter()
        for id_, number in self.last.items():
            for order, at in attempts.announced[id_, number]:
                if order.state is OrderState.SHIPPED:
                    self.shipped[id_] += 1
                elif order.state is OrderState.CANCELLED:
                    self.cancelled[id_].append((order, at))
                else:
                    self.terminal[id_].append((order, at))
        for id_, announced in self.cancelled.items():
            if not self.terminal[id_]:
                self.terminal[id_] = announced
        self.verdicts, self.reservations = defaultdict(list), {}
        for (id_, number, check), verdicts in self.all_verdicts.items():
            if number == self.last.get(id_, number):
                self.verdicts[id_, check] = verdicts
        for key, row in self.all_reservations.items():
            id_, number = split_key(key)
            if number == self.last.get(id_, number):
                self.reservations[id_] = row

    def messages(self, topic, model):
        """The messages of a topic, without those sent again by an operator as they were."""
        entries = (entry for log in self.world.broker.topic(topic) for entry in log.committed())
        return [model.from_json(entry.value) for entry in entries if REPLAYED not in entry.headers]

    def runs(self, service):
        return any(service in group for group in self.world.schedule.groups)

    def decided(self):
        """The orders with a final state, each with all records of that state."""
        return sorted((order_id, announced) for order_id, announced in self.terminal.items() if announced)

    def rows(self, changelog):
        """The rows that a changelog results in, by partition."""
        if changelog in self._rows:
            return self._rows[changelog]
        result = self._rows[changelog] = {}
        for log in self.world.broker.topic(changelog):
            rows = result.setdefault(log.partition, {})
            for entry in log.committed():
                if entry.value is None:
                    rows.pop(entry.key, None)
                else:
                    rows[entry.key] = entry.value
        return result

    def table(self, table):
        return {
            key.decode(): table.model.from_json(value)
            for rows in self.rows(table.changelog).values()
            for key, value in rows.items()
        }


def violations(world):
    """All violations of the guarantee of the run, as sentences."""
    outcome = Outcome(world)
    checks = EXACTLY_ONCE if world.schedule.exactly_once else AT_LEAST_ONCE
    if world.schedule.gentle:
        checks += GENTLY
    return [sentence for check in checks for sentence in check(outcome)]


def at_rest(outcome):
    """No worker is stalled: all records are processed, and every partition has its owner."""
    world = outcome.world
    if world.settled:
        return
    for worker in world.workers:
        if not worker.running:
            yield f"worker {worker.number} does not run"
        elif not worker.ownership.running:
            yield f"worker {worker.number} never took over its partitions"
        for tp in sorted(worker.ownership.partitions) if worker.running else ():
            log, position = world.broker.log(tp), worker.ownership.positions[tp]
            if log.stable < log.end:
                yield f"a transaction is still open in {tp.topic}[{tp.partition}]"
            elif log.read(position, 1)[0]:
                yield f"worker {worker.number} is stuck at {tp.topic}[{tp.partition}] {position} of {log.end}"
            elif log.read(world.broker.group(worker.topology.group).offset(tp) or 0, 1)[0]:
                yield f"worker {worker.number} never commits what it read of {tp.topic}[{tp.partition}]"
    yield "the world never came to rest"


def finished(outcome):
    """Every acknowledged order reaches a final state."""
    for order_id in sorted(outcome.world.acknowledged | outcome.created.keys()):
        if order_id not in outcome.created:
            yield f"{order_id} was acknowledged and is not in the log"
        elif not outcome.terminal.get(order_id):
            yield f"{order_id} never reached a final state"
        elif (view := outcome.views.get(order_id)) is None or not view.decided:
            yield f"{order_id} is decided in the log, not in the view"


def announced(outcome):
    """The final state of every acknowledged order is published."""
    for order_id in sorted(outcome.world.acknowledged | outcome.created.keys()):
        if not outcome.terminal.get(order_id):
            yield f"{order_id} was never announced in a final state"


def one_order_an_id(outcome):
    """Clients with an acknowledged order find that order, and no other under its id."""
    for order_id, accepted in sorted(outcome.world.accepted.items()):
        view = outcome.views.get(order_id)
        for order in accepted:
            if view is not None and view.order is not None and not view.order.same_content(order):
                yield f"{order_id} was taken with quantity {order.quantity}, it has {view.order.quantity}"


def announced_once(outcome):
    for order_id, announced in outcome.decided():
        if len(announced) > 1:
            yield f"{order_id} was announced {len(announced)} times: {', '.join(o.state for o, _ in announced)}"


def announced_alike(outcome):
    """However often a final state is published, it is the same, and it is the view's."""
    for order_id, announced in outcome.decided():
        states = sorted({o.state for o, _ in announced})
        if len(states) > 1:
            yield f"{order_id} was announced {' and '.join(states)}"
        view = outcome.views.get(order_id)
        if (
            view is not None
            and view.order is not None
            and view.order.state not in states
            and not (view.order.state in (OrderState.SHIPPED, OrderState.CANCELLED) and OrderState.VALIDATED in states)
        ):
            yield f"{order_id} was announced {states[0]}, its view says {view.order.state}"


def verdicts_agree(outcome):
    """A check gives one verdict on each attempt, and the final state follows from the verdicts of the last one."""
    for (order_id, attempt, check), verdicts in sorted(outcome.all_verdicts.items()):
        if len({v.validation_result for v in verdicts}) > 1:
            yield f"{check} said {', '.join(v.validation_result for v in verdicts)} of {order_id}, attempt {attempt}"
    initial = outcome.world.settings.of(OrdersSettings).required_checks
    for order_id, announced in outcome.decided():
        view = outcome.views.get(order_id)
        required = initial if view is None or view.required is None else view.required
        passed = [c for c in required if _said(outcome, order_id, c) is ValidationResult.PASS]
        if announced[0][0].state is OrderState.VALIDATED and len(passed) < len(required):
            yield f"{order_id} is VALIDATED, only {', '.join(passed) or 'nobody'} passed it"
        late = view is not None and any(LATE in reason for reason in view.reasons)
        if announced[0][0].state is OrderState.FAILED and len(passed) == len(required) and not late:
            yield f"{order_id} is FAILED, all have passed it"


def within_the_deadline(outcome):
    """An order without all verdicts fails no earlier than its deadline, and soon after it."""
    world = outcome.world
    deadline_ms = world.schedule.deadline_s * 1000
    healed_ms = world.broker.START_MS + 1000 * world.last_fault
    for order_id, announced in outcome.decided():
        first, latest, at = *_made_at(outcome, order_id), announced[0][1]
        view = outcome.views.get(order_id)
        if view is not None and any(LATE in reason for reason in view.reasons) and at < first + deadline_ms:
            yield f"{order_id} failed for want of verdicts {(at - first) / 1000:.3f} s after it was made"
        if at > max(latest, healed_ms) + deadline_ms + SLACK_S * 1000:
            yield f"{order_id} waited {(at - first) / 1000:.0f} s"
    if world.settled:
        for partition, rows in outcome.rows("orders-timers-changelog").items():
            for key in sorted(rows):
                if key.decode() in outcome.terminal:
                    yield f"a wish of {key.decode()} is left in partition {partition}, though it is decided"


def stock_adds_up(outcome):
    """The reserved quantity equals the quantity of the validated orders, and never exceeds the stock."""
    held, sold = Counter(), Counter()
    for reservation in outcome.all_reservations.values():
        held[reservation.product] += reservation.held
    for order_id, announced in outcome.decided():
        order = announced[0][0]
        if order.state is OrderState.VALIDATED and not outcome.shipped[order_id] and not outcome.cancelled[order_id]:
            if _said(outcome, order_id, BuiltInCheck.INVENTORY_CHECK) is not ValidationResult.PASS:
                continue  # the check was not required
            sold[order.product] += order.quantity
        reservation = outcome.reservations.get(order_id)
        if order.state is OrderState.FAILED and reservation is not None and reservation.held:
            yield f"{order_id} is FAILED and holds {reservation.held} of {reservation.product}"
    if BuiltInCheck.INVENTORY_CHECK not in outcome.world.schedule.checks:
        return
    for product, stock in sorted(outcome.stock.items()):
        if not stock.reserved == held[product] == sold[product]:
            yield f"{product}: {stock.reserved} reserved, {held[product]} held by orders, {sold[product]} validated"
    for log in outcome.world.broker.topic(STOCK.changelog):
        for entry in log.committed():
            stock = entry.value and STOCK.model.from_json(entry.value)
            if stock and not 0 <= stock.reserved <= (stock.count or 0):
                yield f"{entry.key.decode()}: {stock.reserved} reserved of {stock.count}"


def stock_is_held(outcome):
    """The reserved quantity equals what the reservations hold: both are rows of one service in one partition."""
    held = Counter()
    for reservation in outcome.all_reservations.values():
        held[reservation.product] += reservation.held
    for product, stock in sorted(outcome.stock.items()):
        if stock.reserved != held[product]:
            yield f"{product}: {stock.reserved} reserved, {held[product]} held by orders"


def customers_add_up(outcome):
    """Every order counts once into its customer's session."""
    if BuiltInCheck.FRAUD_CHECK not in outcome.world.schedule.checks:
        return
    expected = defaultdict(Decimal)
    for order_id in outcome.created:
        order = outcome.orders[order_id]
        expected[str(order.customer_id)] += session_value(order)
    for customer, total in sorted(expected.items()):
        row = outcome.customers.get(customer)
        counted = sum((s.total for s in row.sessions), Decimal(0)) if row else None
        if counted != total:
            yield f"customer {customer} ordered {total} and is counted with {counted}"


def decided_once(outcome):
    """Every message is processed once: one verdict of each check per write of an attempt, each aggregated once."""
    said = Counter()
    for (order_id, attempt), written in sorted(outcome.attempts.written.items()):
        for check in outcome.world.schedule.checks:
            count = len(outcome.all_verdicts[order_id, attempt, check])
            said[order_id] += count
            if count != len(written):
                yield f"attempt {attempt} of {order_id} was written {len(written)} times, {check} spoke {count} times"
    again = Counter(
        entry.key for log in outcome.world.broker.topic(ORDER_VALIDATIONS.name) for entry in log.committed()
    )
    for order_id in sorted(outcome.created):
        view, most = outcome.views.get(order_id), again[order_id.encode()]
        heard = len(view.verdicts) + view.late + len(view.ahead) if view else 0
        # what counted in one attempt is not shown with the next, nor what came before an attempt that never did
        others = {number for id_, number in outcome.attempts.written if id_ == order_id} - {outcome.last[order_id]}
        if not most - len(others) * len(outcome.world.schedule.checks) <= heard <= most:
            yield f"{said[order_id]} verdicts on {order_id}, {most} with replays, {heard} were gathered"


def decided_at_all(outcome):
    """Every check has given a verdict on every attempt."""
    for order_id, attempt in sorted(outcome.attempts.written):
        for check in outcome.world.schedule.checks:
            if not outcome.all_verdicts[order_id, attempt, check]:
                yield f"{check} never spoke of {order_id}, attempt {attempt}"


def state_is_the_changelogs(outcome):
    """The stores of each owner equal their changelogs."""
    world = outcome.world
    for worker in world.workers if world.settled else ():
        numbers = sorted({tp.partition for tp in worker.ownership.partitions})
        for table in worker.topology.tables.values():
            rows = outcome.rows(table.changelog)
            for partition in numbers:
                store, expected = worker.stores.open(table.name, partition), rows.get(partition, {})
                if store.rows != expected:
                    keys = sorted(
                        k for k in store.rows.keys() | expected.keys() if store.rows.get(k) != expected.get(k)
                    )
                    yield (
                        f"{table.name}[{partition}] of worker {worker.number} differs from its changelog in "
                        f"{', '.join(k.decode() for k in keys)}"
                    )


def shipped_when_due(outcome):
    """An order that is validated, paid and checked in is shipped; a check-in is accepted or rejected.

    An order with a negative payment may have been paid for some time.
    """
    if not outcome.runs("fulfilment"):
        return
    most = 1 if outcome.world.schedule.exactly_once else 10**6
    paid, told = Counter(), Counter(f.order_id for f in outcome.messages(FULFILMENTS.name, Fulfilled))
    most_paid = Counter()
    for payment in {p.id: p for p in outcome.messages(PAYMENTS.name, Payment)}.values():
        paid[payment.order_id] += payment.amount
        most_paid[payment.order_id] += max(payment.amount, 0)
    rejected = Counter(r.event_id for r in outcome.messages(CHECKIN_REJECTIONS.name, CheckinRejected))
    check_ins = {c.event_id: c for c in outcome.messages(HOME_CHECKINS.name, HomeCheckin)}.values()
    states = {order_id: announced[0][0].state for order_id, announced in outcome.decided()}
    for order_id, state in sorted(states.items()):
        counted = [c for c in check_ins if c.order_no == order_id and not rejected[c.event_id]]
        value = outcome.orders[order_id].value
        possible = state is OrderState.VALIDATED and bool(counted) and most_paid[order_id] >= value
        due = possible and paid[order_id] >= value
        if outcome.cancelled[order_id]:
            continue
        for what, count in (("fulfilled", told[order_id]), ("shipped", outcome.shipped[order_id])):
            if not int(due) <= count <= most * possible:
                yield f"{order_id}: {state}, {paid[order_id]} paid, {len(counted)} check-ins, {what} {count} times"
    for check_in in sorted(check_ins, key=lambda c: c.event_id):
        count, state = rejected[check_in.event_id], states.get(check_in.order_no)
        if count > most or (
            not count and state is not OrderState.VALIDATED and not outcome.cancelled[check_in.order_no]
        ):
            yield f"check-in {check_in.event_id} of {state or 'no order'} was rejected {count} times"


def effects_done(outcome):
    """Every side effect is done, or a dead letter if it was rejected, and there is no other."""
    if not outcome.runs("courier"):
        return
    done, external = outcome.world.external.done, outcome.world.external
    letters = Counter(
        r.key for r in outcome.messages(courier(None).service.redrive_topic.dead_letters, RejectedSideEffect)
    )
    for order_id in sorted({id_ for (id_, _, _), times in outcome.attempts.asked.items() if times}):
        if external.refuses(order_id):
            if not letters[order_id]:
                yield f"that {order_id} was refused is told nowhere"
        elif not any(done[order_id, state] for state in OrderState):
            yield f"{order_id} never reached the external system"
    for key in sorted(letters.keys() | {key for key, _ in done}):
        if key not in outcome.terminal or (letters[key] and not external.refuses(key)):
            yield f"{key} was told or set aside, though it is {'decided' if key in outcome.terminal else 'not'}"


def effects_done_once(outcome):
    """No side effect runs twice when a rebalance leaves time to drain, or when an owner resumes its own partitions.

    Exception: the broker rejected the acknowledgement, or was slow to end the transaction before it, and the partition
    moved before it could be repeated.
    """
    happened = {what for event in outcome.world.schedule.events for what in (event.what, event.phase)}
    if happened & HARD:
        return
    by = outcome.world.external.by
    asked = Counter()
    for (order_id, _, state), times in outcome.attempts.asked.items():
        asked[order_id, state] += times
    for (order_id, state), count in sorted(outcome.world.external.done.items()):
        moved = happened & {"error", "slow markers"} and len(by[order_id, state]) > 1
        if count > asked[order_id, state] and not moved:
            yield f"{order_id} was told {count} times to be {state}, asked for {asked[order_id, state]} times"


def effects_of_others_on_time(outcome):
    """After the last fault, a customer whose requests are deferred delays no other customer."""
    external = outcome.world.external
    if not outcome.runs("courier") or external.dead is None:
        return
    by_s = DEAD_UNTIL_S - 8.0  # requests made by then are not disturbed by a fault
    for order_id, _ in outcome.decided():
        if outcome.orders[order_id].customer_id == external.dead:
            continue
        asked_s = [(at - Broker.START_MS) / 1000 for at in outcome.attempts.told_at[order_id, outcome.last[order_id]]]
        if not asked_s or external.refuses(order_id) or min(asked_s) > by_s:
            continue
        if external.first.get(order_id, DEAD_UNTIL_S) >= DEAD_UNTIL_S:
            yield f"{order_id} was decided at {min(asked_s):.1f} s, and not told before {DEAD_UNTIL_S:g} s"


def newcomer_processes_each_record_once(outcome):
    """A service that joined has processed each record from where it started on, once."""
    for topic, key, expected, counted in _of_newcomer(outcome):
        if counted != expected:
            yield f"the newcomer has counted {counted} records of {key} in {topic}, not {expected}"


def newcomer_processes_each_record(outcome):
    """A service that joined has processed each record from where it started on, at least once."""
    for topic, key, expected, counted in _of_newcomer(outcome):
        if counted < expected or (counted and not expected):
            yield f"the newcomer has counted {counted} records of {key} in {topic}, not {expected}"


def _of_newcomer(outcome):
    """Yields topic, key, number of records from the start on, and number of records that the newcomer has counted."""
    world = outcome.world
    if not world.settled or any(
        worker.topology.joined != {newcomer.NAME} for worker in world.workers if worker.number in world.schedule.joining
    ):
        return
    for topic, table in newcomer.COUNTS.items():
        expected, counted = Counter(), outcome.table(table)
        source = ORDERS if topic == newcomer.BY_PRODUCT.name else newcomer.TOPICS[topic]
        for log in world.broker.topic(source.name):
            start = world.broker.newcomer_starts.get((source.name, log.partition), log.end)
            values = [source.model.from_json(e.value) for e in log.committed() if e.offset >= start]
            expected.update(newcomer.TOPICS[topic].key(value) for value in values)
        for key in sorted(expected.keys() | counted.keys()):
            yield topic, key, expected[key], counted[key].records if key in counted else 0


def nothing_set_aside(outcome):
    """No message is a dead letter, and no task failed unnoticed."""
    refused = courier(None).service.redrive_topic.dead_letters
    for tp, log in sorted(outcome.world.broker.logs.items()):
        if tp.topic.endswith(DEAD_LETTERS) and tp.topic != refused and log.committed():
            yield f"dead letters in {tp.topic}: {log.committed()[0].headers}"


EXACTLY_ONCE = (
    at_rest,
    finished,
    one_order_an_id,
    announced_once,
    cancelled_once,
    refunded_once,
    cancelled_or_shipped,
    answers_hold,
    released,
    refunded,
    checks_everywhere,
    announced_alike,
    verdicts_agree,
    within_the_deadline,
    stock_adds_up,
    customers_add_up,
    decided_once,
    state_is_the_changelogs,
    shipped_when_due,
    effects_done,
    effects_done_once,
    effects_of_others_on_time,
    nothing_set_aside,
    newcomer_processes_each_record_once,
    earlier_attempts_failed,
    earlier_attempts_hold_nothing,
    reasons_are_verdicts,
    messages_of_replays_left_out,
    unmarked_messages_delivered,
)
AT_LEAST_ONCE = (nothing_set_aside,)
"""The weakest set: a zombie may overwrite the state of its successor, so that an order stays open."""

GENTLY = (
    at_rest,
    announced,
    cancelled_or_shipped,
    answers_hold,
    released,
    refunded,
    checks_everywhere,
    decided_at_all,
    finished,
    one_order_an_id,
    announced_alike,
    within_the_deadline,
    stock_is_held,
    customers_add_up,
    state_is_the_changelogs,
    shipped_when_due,
    effects_done,
    newcomer_processes_each_record,
    earlier_attempts_failed,
    earlier_attempts_hold_nothing,
    messages_of_replays_left_out,
)
"""The invariants of at-least-once, as long as no zombie writes.

Messages may be repeated. All rows of a service in a partition change together. Verdicts may differ: a crash may lose
the redo record of a validator and keep that of the aggregator. Then the validator judges again, perhaps by other stock.
"""


def _made_at(outcome, order_id):
    """When the last attempt of an order was made, first and last, in milliseconds since 1970."""
    times = outcome.created[order_id]
    if outcome.last[order_id] == FIRST_ATTEMPT:
        first = outcome.orders[order_id].created_at.timestamp() * 1000
        return first, first
    return min(times), max(times)  # the aggregator may have accepted any of them


def _said(outcome, order_id, check):
    verdicts = outcome.verdicts[order_id, check]
    return verdicts[0].validation_result if verdicts else None
