"""`GET /v1/orders/{id}` and `…/validated`: reads that can wait for what was written."""

from collections.abc import Callable
from functools import partial

from aiohttp import web

from orders_service.state import ORDERS_VIEW, OrderView
from runtime.hosting import Host
from runtime.http.answers import HttpProblem, answer, problem_as, title_of
from runtime.http.inputs import Deadline, deadline_of, order_id_of
from runtime.http.routing import at_owner, not_here, served_by_standby
from schemas.api import OrderOutcome, Problem, Verdict
from schemas.identifiers import is_composed
from schemas.messages import OrderState


class Undecided(Problem):
    """The 504 of an order that is known, but on which not all verdicts are in: how far it has come."""

    state: OrderState
    verdicts: tuple[Verdict, ...]


class OrderQueries:
    """Reads from the view of whichever worker holds the order."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def order(self, request: web.Request) -> web.StreamResponse:
        """200 as soon as the order is there, 404 if it is not until the timeout."""
        order_id, deadline = order_id_of(request), deadline_of(request)
        look = partial(self._order, order_id, deadline)
        from_copy = partial(self._order_from_copy, order_id)
        return await at_owner(request, self._host, ORDERS_VIEW, order_id, deadline, look, from_copy)

    async def validated(self, request: web.Request) -> web.StreamResponse:
        """200 as soon as the order is decided; at the timeout 504 with how far it is, or 404 if it is unknown."""
        order_id, deadline = order_id_of(request), deadline_of(request)
        look = partial(self._validated, order_id, deadline)
        from_copy = partial(self._validated_from_copy, order_id)
        return await at_owner(request, self._host, ORDERS_VIEW, order_id, deadline, look, from_copy)

    async def _order(self, order_id: str, deadline: Deadline) -> web.Response:
        view = await self._look(order_id, deadline, lambda view: view.order is not None)
        if view is None or view.order is None:
            raise _unknown(order_id)
        return answer(view.order)

    async def _validated(self, order_id: str, deadline: Deadline) -> web.Response:
        view = await self._look(order_id, deadline, lambda view: view.decided)
        if view is None or view.order is None:
            raise _unknown(order_id)
        return answer(view.outcome()) if view.decided else problem_as(_undecided(view.outcome()))

    def _order_from_copy(self, order_id: str) -> web.Response | None:
        """The order, perhaps in an earlier state than it has come to. That it is not there is for the owner to say."""
        copy = self._host.copy(ORDERS_VIEW, order_id)
        if copy is None or copy.row.order is None:
            return None
        return answer(copy.row.order, headers=served_by_standby(copy))

    def _validated_from_copy(self, order_id: str) -> web.Response | None:
        """The outcome, which is final once there is one."""
        copy = self._host.copy(ORDERS_VIEW, order_id)
        if copy is None or not copy.row.decided:
            return None
        return answer(copy.row.outcome(), headers=served_by_standby(copy))

    async def _look(self, order_id: str, deadline: Deadline, enough: Callable[[OrderView], bool]) -> OrderView | None:
        """The row once it is enough, or as it is at the deadline. Raises `KeyNotOwned`, also when it leaves
        meanwhile."""
        with self._host.watch(ORDERS_VIEW, order_id) as watch:
            while True:
                view = self._host.read(ORDERS_VIEW, order_id)
                if view is not None and enough(view):
                    return view
                remaining = deadline.remaining()
                if not remaining:
                    return view
                if self._host.stopping:
                    raise not_here("This worker is stopping. Repeat the request.")
                await watch.wait(remaining)


def _unknown(order_id: str) -> HttpProblem:
    form = "" if is_composed(order_id) else " The id is not in Unicode form NFC, in which orders are posted."
    return HttpProblem(404, f"There is no order {order_id!r} (yet). A larger timeout waits for it.{form}")


def _undecided(outcome: OrderOutcome) -> Undecided:
    return Undecided(
        title=title_of(504),
        status=504,
        detail=f"The order {outcome.id!r} is not decided yet. Repeat the request, or give it a larger timeout.",
        state=outcome.state,
        verdicts=outcome.verdicts,
    )
