"""The schedule of a run as data, drawn from a seed. A schedule can be shrunk and run again."""

from dataclasses import dataclass, replace
from random import Random

from ecosystem.services import CORE
from schemas.messages import BuiltInCheck

DEPLOYMENTS = (
    (CORE,),
    (CORE,),
    (CORE,),
    (("orders", "details"), ("fraud", "inventory")),
    (("orders", "inventory"), ("fraud", "details")),
    (("orders",), ("fraud", "inventory", "details")),
    tuple((name,) for name in CORE),
)
CHECKS = {
    "fraud": BuiltInCheck.FRAUD_CHECK,
    "inventory": BuiltInCheck.INVENTORY_CHECK,
    "details": BuiltInCheck.ORDER_DETAILS_CHECK,
}
REQUESTS = {
    True: (
        "InitProducerId",
        "AddPartitionsToTxn",
        "Produce",
        "Produce",
        "AddOffsetsToTxn",
        "TxnOffsetCommit",
        "TxnOffsetCommit",
        "EndTxn",
        "EndTxn",
    ),
    False: ("InitProducerId", "Produce", "Produce", "Produce", "OffsetCommit"),
}
OF_A_HANDOVER = ("OffsetFetch", "ListOffsets", "FetchChangelog", "JoinGroup", "SyncGroup", "Heartbeat", "Fetch")
PHASES = ("sending", "sent", "answered")
CUSTOMERS, PRODUCTS = 3, ("mug", "cap")
LAST_FAULT_S = 12.0


@dataclass(frozen=True)
class Event:
    """An event at a time, in seconds. `what` names its kind; the other fields are its arguments."""

    at: float
    what: str
    worker: int = 0
    seconds: float = 0.0
    request: str = ""
    phase: str = ""
    skip: int = 0
    number: int = 0
    product: str = ""
    name: str = ""
    quantity: int = 0
    price: int = 0
    by_http: bool = False

    def __str__(self):
        extra = {
            "crash": f"worker {self.worker} for {self.seconds:.1f} s{self._where}",
            "wipe": f"worker {self.worker} for {self.seconds:.1f} s, its disk lost{self._where}",
            "pause": f"worker {self.worker} for {self.seconds:.1f} s{self._where}",
            "join": f"worker {self.worker} with one more, {self.phase or 'stop'} for {self.seconds:.1f} s {self.name}",
            "part": f"worker {self.worker} without it, {self.phase or 'stop'} for {self.seconds:.1f} s",
            "stop": f"worker {self.worker} for {self.seconds:.1f} s",
            "delay": f"a request of worker {self.worker} by {self.seconds:.1f} s{self._where}",
            "error": f"to worker {self.worker}{self._where}",
            "cut": f"worker {self.worker} off for {self.seconds:.1f} s",
            "storm": f"for {self.seconds:.1f} s",
            "slow markers": f"for {self.seconds:.1f} s",
            "rival": f"order o{self.number}: {self.quantity} x {self.product} at {self.price}",
            "post": f"order o{self.number}: {self.quantity} x {self.product} at {self.price}",
            "remove": f"all but {self.quantity} of {self.name}",
            "stock": f"{self.quantity} of {self.product}",
            "pay": f"order o{self.number}, {self.name}: {self.price}",
            "require": f"{self.name}, {self.seconds:.1f} s between partitions",
            "check in": f"order o{self.number}, {self.name}",
            "redecide": f"order o{self.number}, {self.quantity} times, {self.name or 'without side effects'}",
            "redecide wrongly": f"order o{self.number}, {self.quantity} times",
            "replay stage": f"{self.name} of order o{self.number}",
        }.get(self.what, f"order o{self.number}" if self.number else "")
        return f"{self.at:7.3f} {self.what} {extra}".rstrip()

    @property
    def _where(self):
        return (
            f", {self.phase} {self.request}" + (f" (number {self.skip + 1})" if self.skip else "")
            if self.request
            else ""
        )


@dataclass(frozen=True)
class Schedule:
    """All events and settings of a run.

    Arguments:
        seed: of everything else that is random: delays and losses of messages.
        exactly_once: the guarantee.
        groups: the compositions, by group.
        workers: group and start time of each worker.
        deadline_s: the validation deadline of orders.
        slow_markers: factor by which transaction markers are delayed during the whole run.
        standbys: whether workers keep standby replicas.
        gentle: no worker is delayed past its session, so that none is a zombie.
    """

    seed: int
    exactly_once: bool
    groups: tuple
    workers: tuple
    deadline_s: float
    batch_limit: int
    slow_markers: float
    gentle: bool
    standbys: bool
    events: tuple

    @property
    def checks(self):
        """The checks whose services run."""
        running = {name for group in self.groups for name in group}
        return tuple(check for name, check in CHECKS.items() if name in running)

    @property
    def joining(self):
        """Numbers of the workers that get one more service."""
        return {event.worker for event in self.events if event.what == "join"}

    def without(self, start, count):
        return replace(self, events=self.events[:start] + self.events[start + count :])


def draw(seed, *, exactly_once):
    """The schedule of a seed."""
    random = Random(f"{seed} {exactly_once}")
    groups, deadline_s = random.choice(DEPLOYMENTS), random.choice((60.0, 60.0, 60.0, 3.0))
    if random.random() < 0.12:  # a validator that does not run: its verdicts never arrive
        absent, deadline_s = random.choice(tuple(CHECKS)), random.choice((1.0, 3.0, 6.0))
        groups = tuple(g for group in groups if (g := tuple(name for name in group if name != absent)))
    gentle = not exactly_once and random.random() < 0.5
    workers = []
    for group in range(len(groups)):
        count = (
            random.choice((2, 2, 3)) if len(groups) == 1 else random.choice((1, 2) if len(groups) < 4 else (1, 1, 2))
        )
        for n in range(count):
            late = n > 0 and random.random() < 0.3
            workers.append((group, random.uniform(1, 10) if late else random.uniform(0, 0.3)))
    groups = _joined(Random(f"{seed} {exactly_once} others"), groups)
    events = [*_trade(random, exactly_once), *_faults(random, len(workers), exactly_once, gentle)]
    events += _retention(Random(f"{seed} {exactly_once} retention"))
    events += _newcomer(Random(f"{seed} {exactly_once} newcomer"), workers)
    fulfilment = any("fulfilment" in group for group in groups)
    if fulfilment:
        events += _fulfilment(Random(f"{seed} {exactly_once} fulfilment"), events)
    from tests.simulation.cancelling import changes  # these make events of this module
    from tests.simulation.replaying import replays, with_messenger

    events += changes(Random(f"{seed} {exactly_once} changes"), events)
    events += replays(Random(f"{seed} {exactly_once} replays"), events, fulfilment=fulfilment)
    groups = with_messenger(Random(f"{seed} {exactly_once} replays"), groups)
    return Schedule(
        seed=seed,
        exactly_once=exactly_once,
        groups=groups,
        workers=tuple(workers),
        deadline_s=deadline_s,
        batch_limit=random.choice((1, 3, 500, 500)),
        slow_markers=random.choice((1.0, 1.0, 1.0, 30.0)),
        gentle=gentle,
        standbys=random.random() < 0.4,
        events=tuple(sorted(events, key=lambda event: event.at)),
    )


def _joined(random, groups):
    """The groups. Some also run fulfilment or the courier."""
    for name in ("fulfilment", "courier"):
        if random.random() < 0.3:
            chosen = random.randrange(len(groups))
            groups = tuple(group + (name,) * (n == chosen) for n, group in enumerate(groups))
    return groups


def _newcomer(random, workers):
    """A rolling restart of one group with one more service. Some workers are restarted without it, and with it again.

    It starts from now on, or catches up.
    """
    if random.random() < 0.7:
        return
    group, _ = random.choice(workers)
    members = [n for n, (its, _) in enumerate(workers) if its == group]
    name, at = random.choice(("", "", "catch up")), random.uniform(1, 7)
    for worker in members:
        seconds, phase = random.choice((0.2, 1.0, 3.0)), random.choice(("", "", "crash"))
        yield Event(at, "join", worker, seconds, phase=phase, name=name)
        if random.random() < 0.3:
            yield Event(at + random.uniform(0.5, 2), "part", worker, seconds, phase=phase)
            yield Event(at + random.uniform(2.5, 4), "join", worker, seconds, phase=phase, name=name)
        at += random.uniform(0.2, 2.5)


def _retention(random):
    """Times of retention: records that all groups have processed are removed."""
    for _ in range(random.choice((0, 0, 0, 1, 2))):
        yield Event(random.uniform(2, LAST_FAULT_S), "expire", quantity=random.choice((0, 0, 1, 5)))


def _fulfilment(random, events):
    """Payments, full and partial, and check-ins, for existing and unknown orders; some are duplicates."""
    orders = [event for event in events if event.what == "post"]
    for order in orders:
        value = max(order.quantity, 0) * order.price
        parts = random.choice(((), (value,), (value,), (value - 1, 1), (value - 1,)))
        for n, amount in enumerate(parts):
            pay = Event(random.uniform(0, 14), "pay", number=order.number, name=f"p{order.number}-{n}", price=amount)
            yield from (pay,) * random.choice((1, 1, 1, 2))
    for number in [order.number for order in orders] + [90]:
        for n in range(random.choice((0, 1, 1, 2))):
            check_in = Event(random.uniform(0, 14), "check in", number=number, name=f"c{number}-{n}")
            yield from (check_in,) * random.choice((1, 1, 1, 2))


def _trade(random, exactly_once):
    """Orders, some repeated, some replayed, some conflicting with another under the same id; stock that only grows."""
    counts = {}
    for product in PRODUCTS:
        counts[product] = random.choice((2, 5, 10, 30))
        yield Event(random.choice((0.0, 0.0, random.uniform(0, 4))), "stock", product=product, quantity=counts[product])
    for at in sorted(random.uniform(4, 10) for _ in range(random.choice((0, 0, 1, 2)))):
        product = random.choice(PRODUCTS)
        counts[product] += random.randint(0, 6)
        yield Event(at, "stock", product=product, quantity=counts[product])
    orders = random.randint(4, 14)
    burst = random.random() < 0.3
    for number in range(1, orders + 1):
        at = random.uniform(2, 2.2) if burst and number > 2 else random.uniform(0.3, 10)
        by_http = random.random() < 0.6
        post = Event(
            at,
            "post",
            number=number,
            product=random.choice(PRODUCTS),
            quantity=random.choice((1, 1, 2, 3, 5)) if random.random() > 0.05 else 0,
            price=random.choice((5, 20, 100, 300, 700)),
            by_http=by_http,
        )
        yield post
        if random.random() < 0.25:
            later = at + random.choice((0.0, 0.05, 2.0)) * random.random()
            yield Event(later, "post again", number=number, by_http=by_http or random.random() < 0.5)
        if by_http and exactly_once and random.random() < 0.2:
            later = at + random.choice((0.0, 0.05, 2.0)) * random.random()
            yield replace(post, at=later, what="rival", quantity=post.quantity + 1)
        if random.random() < 0.2:
            yield Event(random.uniform(at, 14), "replay", number=number)


def _faults(random, workers, exactly_once, gentle):
    """Faults, often close together, so that one hits while another is not healed."""
    requests = REQUESTS[exactly_once] + OF_A_HANDOVER
    at = random.uniform(0.5, 4)
    for _ in range(random.choice((1, 2, 3, 4, 6))):
        at += random.choice((0.02, 0.3, 1.0, 3.0)) * random.random()
        if at > LAST_FAULT_S:
            return
        what = random.choices(
            ("crash", "wipe", "stop", "error", "compact", "slow markers", "pause", "cut", "storm", "delay"),
            (25, 6, 8, 12, 4, 5, *((0, 0, 0, 0) if gentle else (30, 6, 6, 10))),
        )[0]
        placed = {}
        if what in ("error", "delay") or (what in ("crash", "wipe", "pause") and random.random() < 0.7):
            placed = {
                "request": random.choice(
                    REQUESTS[exactly_once] if what == "error" or random.random() < 0.65 else requests
                ),
                "phase": "sending" if what == "delay" else random.choice(PHASES[::2] if what == "error" else PHASES),
                "skip": random.choice((0, 0, 0, 1, 3)),
            }
        seconds = {
            "crash": random.choice((0.1, 0.5, 3.0, 5.0)),
            "wipe": random.choice((0.1, 1.0, 4.0)),
            "pause": random.choice((0.3, 1.2, 2.5, 3.5, 6.0)),
            "stop": random.choice((0.1, 1.0, 3.0)),
            "cut": random.choice((0.5, 2.0, 4.0)),
            "delay": random.choice((0.5, 1.0, 1.6, 3.0)),
            "storm": random.choice((0.5, 2.0)),
            "slow markers": random.choice((1.0, 3.0)),
        }.get(what, 0.0) * random.uniform(0.7, 1.3)
        worker = random.randrange(workers)
        yield Event(at, what, worker=worker, seconds=seconds, **placed)
        if what == "delay" and random.random() < 0.5:  # during a rebalance
            yield Event(
                at + random.random(), random.choice(("stop", "crash")), worker=(worker + 1) % workers, seconds=1.0
            )
