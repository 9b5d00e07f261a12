"""`GET /v1/orders/{id}` and `…/validated`: interactive queries that can wait (read-your-writes)."""

from collections.abc import Callable
from functools import partial

from aiohttp import web

from orders_service.state import ORDERS_VIEW, OrderView
from runtime.hosting import Host
from runtime.http.answers import HttpProblem, answer, problem_as, title_of
from runtime.http.inputs import Deadline, deadline_of, order_id_of
from runtime.http.routing import not_owned, route_to_owner, served_by_standby
from schemas.api import OrderOutcome, Problem, Verdict
from schemas.identifiers import is_composed
from schemas.messages import CheckType, Order, OrderState


class UndecidedOrder(Problem):
    """Body of the 504 for an order that is not decided yet: its state and the verdicts so far."""

    state: OrderState
    verdicts: tuple[Verdict, ...]
    required: tuple[CheckType, ...] = ()
    missing: tuple[CheckType, ...] = ()


async def get_order(host: Host, request: web.Request) -> web.StreamResponse:
    """Answers 200 as soon as the order exists, 404 if it does not exist at the timeout."""
    order_id, deadline = order_id_of(request), deadline_of(request)
    read = partial(_order, host, order_id, deadline)
    stale_read = partial(_stale_order, host, order_id)
    return await route_to_owner(request, host, ORDERS_VIEW, order_id, deadline, read, stale_read)


async def get_validated_order(host: Host, request: web.Request) -> web.StreamResponse:
    """Answers 200 once the order is decided. At the timeout: 504 if it is undecided, 404 if unknown."""
    order_id, deadline = order_id_of(request), deadline_of(request)
    read = partial(_outcome, host, order_id, deadline)
    stale_read = partial(_stale_outcome, host, order_id)
    return await route_to_owner(request, host, ORDERS_VIEW, order_id, deadline, read, stale_read)


async def wait_for_order(host: Host, order_id: str, deadline: Deadline) -> Order:
    """Waits until the order exists. Raises the 404 of an unknown order at the deadline."""
    view = await _wait_for(host, order_id, deadline, lambda view: view.order is not None)
    if view is None or view.order is None:
        raise unknown_order(order_id)
    return view.order


async def _order(host: Host, order_id: str, deadline: Deadline) -> web.Response:
    return answer(await wait_for_order(host, order_id, deadline))


async def _outcome(host: Host, order_id: str, deadline: Deadline) -> web.Response:
    view = await _wait_for(host, order_id, deadline, lambda view: view.decided)
    if view is None or view.order is None:
        raise unknown_order(order_id)
    return answer(view.outcome()) if view.decided else problem_as(_undecided(view.outcome()))


def _stale_order(host: Host, order_id: str) -> web.Response | None:
    """Stale read of the order, perhaps in an earlier state. `None` if absent: only the owner can tell."""
    copy = host.read_stale(ORDERS_VIEW, order_id)
    if copy is None or copy.row.order is None:
        return None
    return answer(copy.row.order, headers=served_by_standby(copy))


def _stale_outcome(host: Host, order_id: str) -> web.Response | None:
    """Stale read of the outcome, which is final; `None` if the order is undecided."""
    copy = host.read_stale(ORDERS_VIEW, order_id)
    if copy is None or not copy.row.decided:
        return None
    return answer(copy.row.outcome(), headers=served_by_standby(copy))


async def _wait_for(
    host: Host, order_id: str, deadline: Deadline, condition: Callable[[OrderView], bool]
) -> OrderView | None:
    """Waits until the row satisfies `condition` or the deadline passes; returns the row.

    Raises `KeyNotOwned`, also when the partition is revoked meanwhile.
    """
    with host.watch(ORDERS_VIEW, order_id) as watch:
        while True:
            view = host.read(ORDERS_VIEW, order_id)
            if view is not None and condition(view):
                return view
            remaining = deadline.remaining()
            if not remaining:
                return view
            if host.stopping:
                raise not_owned("This worker is stopping. Repeat the request.")
            await watch.wait(remaining)


def unknown_order(order_id: str) -> HttpProblem:
    """Returns the 404 of an order that does not exist."""
    form = "" if is_composed(order_id) else " The id is not in Unicode form NFC, in which orders are posted."
    return HttpProblem(404, f"There is no order {order_id!r} (yet). A larger timeout waits for it.{form}")


def _undecided(outcome: OrderOutcome) -> UndecidedOrder:
    return UndecidedOrder(
        title=title_of(504),
        status=504,
        detail=f"The order {outcome.id!r} is not decided yet. Repeat the request, or give it a larger timeout.",
        state=outcome.state,
        verdicts=outcome.verdicts,
        required=outcome.required,
        missing=outcome.missing,
    )
