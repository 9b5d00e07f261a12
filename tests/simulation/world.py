"""The world of a run: clients, a warehouse and workers around a broker. It executes a schedule until all is settled."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random

from aiokafka.errors import KafkaError

from fulfilment_service.settings import FulfilmentSettings
from orders_service.commands import place
from orders_service.state import ORDERS_VIEW
from runtime.common.partitioning import partition_of
from runtime.errors import BrokerUnavailable, KeyNotOwned
from runtime.model.records import Write
from schemas.messages import HomeCheckin, Order, Payment, StockLevel
from schemas.topics import HOME_CHECKINS, ORDERS, PAYMENTS, WAREHOUSE_INVENTORY
from tests.simulation import courier, newcomer
from tests.simulation.broker import Broker
from tests.simulation.cancelling import Changes
from tests.simulation.clock import Process, SimulatedLoop
from tests.simulation.network import Network, Trap
from tests.simulation.producer import Broken, SimulatedProducer
from tests.simulation.replaying import REPLAYED, Replays
from tests.simulation.schedule import LAST_FAULT_S
from tests.simulation.worker import SimulatedWorker, settings_of, topology_of

POST_TIMEOUT_S = 5.0
POSTS = 30
"""Attempts of a client before it gives up."""
SETTLE_S = 60.0
"""Virtual seconds within which the world must settle after the last fault and deadline."""

MOST_STEPS = 400_000


class World(Changes, Replays):
    """A run of a schedule.

    Arguments:
        trace: called with process and event of each step.
        worker: the class of the workers.
    """

    def __init__(self, schedule, trace=None, worker=SimulatedWorker):
        self.schedule = schedule
        self.loop = SimulatedLoop()
        self.external = self.loop.external = courier.external_system(schedule.seed)  # type: ignore[attr-defined]
        self.trace = trace and (lambda who, what: trace(self.loop.now, who, what))
        random = Random(f"{schedule.seed} weather")
        self.network = Network(self.loop, random, self.trace)
        self.broker = Broker(self.loop, random, self.trace)
        self.broker.marker_delay = schedule.slow_markers
        self.settings = settings_of(schedule.exactly_once, schedule.deadline_s, schedule.batch_limit)
        self._patience_s = self.settings.of(FulfilmentSettings).checkin_patience_s
        self.topologies = [
            topology_of(services, schedule.exactly_once, schedule.deadline_s) for services in schedule.groups
        ]
        self.workers = [
            worker(
                self.loop,
                self.network,
                self.broker,
                n,
                self.topologies[group],
                self.settings,
                self.trace,
                self._ended,
                standbys=schedule.standbys,
            )
            for n, (group, _) in enumerate(schedule.workers)
        ]
        self.clients_process = Process(self.loop, "clients")
        self.orders = {}
        self.acknowledged = set()
        self.accepted = {}
        """Acknowledged orders by id."""
        self.faults = Counter()
        self.failures = []
        self.last_fault = 0.0
        self.settled = False
        self._storms = 0
        self._asking = 0
        """Clients that still wait for an answer."""
        self._warehouse = asyncio.Lock()
        self.prepare()
        self.prepare_replays()

    def run(self):
        """Runs to the end. Returns itself, for the invariants."""
        try:
            self.loop.run(self._play(), MOST_STEPS)
        finally:
            self.network.closed = True
            self.loop.end([self.clients_process, *(p for w in self.workers for p in w.processes)])
        return self

    async def _play(self):
        for worker, (_, at) in zip(self.workers, self.schedule.workers, strict=True):
            self.loop.at(at, None, worker.start)
        for event in self.schedule.events:
            self.loop.at(event.at, None, self._happen, event)
        end = LAST_FAULT_S + 4.0 + self.schedule.deadline_s + SETTLE_S
        await asyncio.sleep(max((e.at for e in self.schedule.events), default=0.0))
        while self.loop.now < end:
            await asyncio.sleep(0.5)
            if self.quiet():
                await asyncio.sleep(1.0)
                if self.quiet():
                    self.settled = True
                    return

    def quiet(self):
        """Whether every worker runs, all records are processed, no batch is in progress, and no order is open."""
        if self.loop.now < self.last_fault or not all(w.running and w.ownership.running for w in self.workers):
            return False
        if self._asking or any(
            w.live.loop.turn.locked() or w.live.commands or w.live.side_effects for w in self.workers
        ):
            return False
        if any(self._woken_soon(worker) for worker in self.workers):
            return False
        if any(log.stable < log.end for log in self.broker.logs.values()):
            return False
        for worker in self.workers:
            positions = worker.ownership.positions
            for tp in worker.ownership.partitions:
                log = self.broker.log(tp)
                if log.read(positions[tp], 1)[0]:
                    return False
                if log.read(self.broker.group(worker.topology.group).offset(tp) or 0, 1)[0]:
                    return False
        owned = [(w.topology.group, p) for w in self.workers for p in {tp.partition for tp in w.ownership.partitions}]
        return len(owned) == len(self.topologies) * self.settings.partitions and not self._open()

    def _woken_soon(self, worker):
        """Whether a timer is due soon: that of a check-in that waits for its order."""
        due = worker.live.loop.partitions.timers.next()
        return due is not None and due < self._now() + timedelta(seconds=2 * self._patience_s)

    def _open(self):
        states = {}
        for log in self.broker.topic(ORDERS.name):
            for entry in log.committed():
                if b'"CREATED"' in entry.value:
                    states.setdefault(entry.key, False)
                else:
                    states[entry.key] = True
        return not all(states.values()) or self._reopened_and_open()

    # What happens.

    def _happen(self, event):
        if self.trace:
            self.trace("world", str(event)[8:])
        getattr(self, "_" + event.what.replace(" ", "_"))(event)

    def _fault(self, event, heals_in=0.0):
        self.faults[event.what] += 1
        self.last_fault = max(self.last_fault, self.loop.now + heals_in)

    def _stock(self, event):
        level = StockLevel(product=event.product, count=event.quantity)
        self.clients_process.start(self._announce(level))

    def _post(self, event):
        order = Order(
            id=f"o{event.number}",
            customer_id=event.number % 3,
            product=event.product,
            quantity=event.quantity,
            price=event.price,
            created_at=self._now(),
        )
        self.orders[order.id] = order
        self._by(event, order)

    def _rival(self, event):
        """A client that posts another order under an id that is in use."""
        order = self.orders.get(f"o{event.number}")
        if order is not None:
            self._by(event, order.model_copy(update={"quantity": event.quantity, "created_at": self._now()}))

    def _post_again(self, event):
        """A client that repeats its POST at a worker that has not processed the first one."""
        order = self.orders.get(f"o{event.number}")
        if order is not None:
            again = order.model_copy(update={"created_at": self._now()})
            self._by(event, again)

    def _by(self, event, order):
        if event.by_http:
            self.clients_process.start(self._until_answered(self._post_by_http(order)))
        else:
            self.clients_process.start(self._until_answered(self._write(ORDERS, order, self.acknowledged)))

    async def _until_answered(self, asking):
        self._asking += 1
        try:
            await asking
        finally:
            self._asking -= 1

    def _pay(self, event):
        payment = Payment(id=event.name, order_id=f"o{event.number}", ccy="EUR", amount=event.price)
        self.clients_process.start(self._until_answered(self._write(PAYMENTS, payment, None)))

    def _check_in(self, event):
        check_in = HomeCheckin(
            event_id=event.name,
            internet_no="1",
            order_no=f"o{event.number}",
            staff_code="s",
            job_status="done",
            checkin_latitude=0,
            checkin_longitude=0,
            checkin_date=self._now(),
        )
        self.clients_process.start(self._until_answered(self._write(HOME_CHECKINS, check_in, None)))

    def _replay(self, event):
        """An operator replays all records of an order."""
        for log in self.broker.topic(ORDERS.name):
            for entry in log.committed():
                if entry.key == f"o{event.number}".encode() and REPLAYED not in entry.headers:
                    write = Write(ORDERS.name, log.partition, entry.key, entry.value, (REPLAYED,))
                    self.clients_process.start(self._send(write, None))

    def _crash(self, event):
        self._at(event, lambda _: self._down(event, wipe=False))

    def _wipe(self, event):
        self._at(event, lambda _: self._down(event, wipe=True))

    def _pause(self, event):
        self._at(event, lambda request: self._sleep(event, request))

    def _join(self, event):
        """A worker is restarted with one more service, in the group that it was in; or crashes and returns with it."""
        worker = self.workers[event.worker]
        composition = self.schedule.groups[self.schedule.workers[event.worker][0]]
        topology = topology_of((*composition, newcomer.NAME), self.schedule.exactly_once, self.schedule.deadline_s)
        self._change(event, topology.in_group("+".join(sorted(composition))))
        worker.catch_up = (newcomer.NAME,) if event.name == "catch up" else ()
        self.broker.newcomer_starts.catches_up = event.name == "catch up"

    def _part(self, event):
        """A worker is restarted without the service that has joined."""
        self._change(event, self.topologies[self.schedule.workers[event.worker][0]])

    def _change(self, event, topology):
        self._fault(event, event.seconds)
        worker = self.workers[event.worker]
        worker.next_topology = topology
        if not worker.running:
            return
        if event.phase == "crash":
            worker.crash()
            self._later(event.seconds, worker.start)
        else:
            worker.stop()
            worker.away = event.seconds

    def _stop(self, event):
        self._fault(event, event.seconds)
        worker = self.workers[event.worker]
        if worker.running:
            worker.stop()
            worker.away = event.seconds

    def _error(self, event):
        """The broker answers with an error that is neither fencing nor retriable."""

        def spring(request):
            self._fault(event)
            self.network.fail(request, Broken(f"{event.phase} {event.request}"))

        self._at(event, spring)

    def _delay(self, event):
        """A request is delayed while its worker continues."""

        def spring(request):
            self._fault(event, event.seconds)
            process = self.workers[event.worker].process
            request.channel.arrival = self.loop.now + event.seconds  # later requests of the connection wait behind it
            self.network.resend(request)
            if self.trace:
                self.trace(process.name, f"{request.name} is held up for {event.seconds:.1f} s")

        self._at(event, spring)

    def _cut(self, event):
        self._fault(event, event.seconds)
        worker = self.workers[event.worker]
        if worker.process is not None:
            self.network.cut.add(worker.process.name)
            self._later(event.seconds, self.network.cut.discard, worker.process.name)

    def _storm(self, event):
        self._fault(event, event.seconds)
        self._storms += 1
        self.network.loss, self.network.slowness = 0.1, 8.0
        self._later(event.seconds, self._calm)

    def _slow_markers(self, event):
        self._fault(event, event.seconds)
        self.broker.marker_delay = 100.0
        self._later(event.seconds, setattr, self.broker, "marker_delay", self.schedule.slow_markers)

    def _compact(self, event):
        self._fault(event)
        for tp, log in self.broker.logs.items():
            if tp.topic.endswith("-changelog"):
                log.compact()

    def _expire(self, event):
        """Retention removes records that every group, and a service that joined, has processed: some, or all."""
        self._fault(event)
        topologies = {*self.topologies, *(worker.next_topology for worker in self.workers)}
        joined = any(newcomer.NAME in topology.joined for topology in topologies)
        for tp in [tp for tp in self.broker.logs if any(tp.topic in topology.consumed for topology in topologies)]:
            readers = {topology.group for topology in topologies if tp.topic in topology.consumed}
            read = min(self.broker.group(group).read(tp) for group in readers)
            if joined or self.faults["join"]:  # once it has joined, it may come back
                read = self.broker.newcomer_starts.read(tp, read)
            self.broker.log(tp).expire(read - event.quantity)

    def _remove(self, event):
        """Retention removes all records of an input, processed or not."""
        self._fault(event)
        for log in self.broker.topic(event.name):
            log.expire(log.stable - event.quantity)

    # How it happens.

    def _at(self, event, spring):
        """Now, or when the worker's process sends the request that the event names."""
        process = self.workers[event.worker].process
        if not event.request:
            if process is not None and process.alive:
                spring(None)
        elif process is not None:
            trap = Trap(event.request, event.phase, LAST_FAULT_S, spring, event.skip)
            process.traps.append(trap)

    def _down(self, event, *, wipe):
        worker = self.workers[event.worker]
        self._fault(event, event.seconds)
        if self.trace:
            self.trace(worker.process.name, "crashes")
        worker.crash(wipe=wipe)
        self._later(event.seconds, worker.start)

    def _sleep(self, event, request):
        process = self.workers[event.worker].process
        if process.paused:
            return
        self._fault(event, event.seconds)
        if self.trace:
            self.trace(process.name, f"pauses for {event.seconds:.1f} s")
        process.pause()
        self._later(event.seconds, process.resume)
        if request is not None and event.phase == "sending":
            self.loop.at(self.loop.now, process, self.network.resend, request)

    def _calm(self):
        self._storms -= 1
        if not self._storms:
            self.network.loss, self.network.slowness = 0.0, 1.0

    def _later(self, seconds, callback, *args):
        self.loop.at(self.loop.now + seconds, None, callback, *args)

    def _ended(self, worker, error):
        """Restarts a worker that has ended, by itself or by a stop."""
        if error is not None:
            self.failures.append(error)
        away = worker.away if error is None else 1.0
        self.last_fault = max(self.last_fault, self.loop.now + away)
        self._later(away, worker.start)

    def _now(self):
        return datetime.fromtimestamp(Broker.START_MS / 1000, UTC) + timedelta(seconds=self.loop.now)

    async def _announce(self, level):
        async with self._warehouse:  # one stock level after the other: none is overtaken by an older one
            await self._write(WAREHOUSE_INVENTORY, level, None)

    async def _write(self, topic, value, acknowledged):
        key = topic.key(value).encode()
        write = Write(topic.name, partition_of(key, self.settings.partitions), key, value.to_json())
        if await self._send(write, acknowledged) and self.trace:
            self.trace("clients", f"{key.decode()} is acknowledged")

    async def _post_by_http(self, order):
        """Asks one worker after the other, like a client that gets a 503 or no answer."""
        partition = partition_of(order.id.encode(), self.settings.partitions)
        for _ in range(POSTS):
            for worker in self.workers:
                if worker.running and worker.live is not None and ORDERS_VIEW.name in worker.topology.tables:
                    if not worker.ownership.settled(partition) and not worker.process.paused:
                        continue  # it would answer 404 at once
                    reply = self.loop.create_future()
                    self.loop.at(self.loop.now + self.network.delay(), None, self._ask, worker, order, reply)
                    await asyncio.wait({reply}, timeout=POST_TIMEOUT_S)
                    if reply.done() and reply.result() is not None:
                        known = reply.result()
                        if self.trace:
                            self.trace("clients", f"{order.id} is {'taken' if known is order else 'known'}")
                        if known.same_content(order):
                            self.acknowledged.add(order.id)
                            self.accepted.setdefault(order.id, []).append(order)
                        return
            await asyncio.sleep(0.3)

    def _ask(self, worker, order, reply, decide=None):
        """A POST or DELETE arrives at a worker, which answers as `orders_service.http` does: with its current order."""
        if not worker.running or worker.live is None:
            return
        process, engine = worker.process, worker.live
        decide = decide or partial(place, order)

        async def handle():
            answer = None
            try:
                async with asyncio.timeout(POST_TIMEOUT_S):
                    answer = await engine.submit(ORDERS_VIEW, order.id, decide) or order
            except (KeyNotOwned, BrokerUnavailable, TimeoutError):
                pass
            self.loop.at(self.loop.now + self.network.delay(), self.clients_process, answered, answer)

        def answered(answer):
            if not reply.done():
                reply.set_result(answer)

        process.start(handle())

    async def _send(self, write, acknowledged):
        producer = SimulatedProducer(self.clients_process, self.network, self.broker)
        try:
            async with asyncio.timeout(POST_TIMEOUT_S if acknowledged is not None else None):
                await producer.start()
                await producer.send([write])
        except (KafkaError, TimeoutError):
            return False
        if acknowledged is not None:
            acknowledged.add(write.key.decode())
        return True
