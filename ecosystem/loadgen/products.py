"""Changes products while orders are placed: prices, and one product that is withdrawn and offered again.

A changed price is the usual one again with the next change: the orders have the usual prices, and must pass within the
grace period of `ORDER_PRICES=catalogue`. While the product is withdrawn, orders for it are placed and must fail.
"""

from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from functools import partial
from random import Random

from ecosystem.clients.api import OrdersApi, ProductsApi
from ecosystem.loadgen import sample
from ecosystem.loadgen.retries import Mismatch, RetryPolicy, rejected_with
from ecosystem.loadgen.tally import Tally
from schemas.api import NewProduct, OrderOutcome, Product, ProductContent, ProductState
from schemas.messages import OrderState

PAUSE_S = 10.0
"""Seconds between two changes: too few per minute for an alert of product-security."""
_WITHDRAWN_EVERY = 5
_CENT = Decimal("0.01")


class ProductChanges:
    """Changes the sample products, and checks each change. Others may change them at the same time."""

    def __init__(
        self, api: ProductsApi, orders: Sequence[OrdersApi], random: Random, retries: RetryPolicy, tally: Tally
    ) -> None:
        self._api = api
        self._orders = orders
        self._random = random
        self._retries = retries
        self._tally = tally
        self._repriced: NewProduct | None = None
        """The product whose price was changed last, if it is to get its usual price again."""

    async def change(self, number: int) -> None:
        """Makes change `number`, counted from 0. Raises `Mismatch` and `Stopped`."""
        if number % _WITHDRAWN_EVERY == 1:
            await self._withdraw_and_restore(await self._get_or_create(sample.seasonal()))
        else:
            await self._change_price(self._repriced or self._random.choice(sample.products()))

    async def _change_price(self, usual: NewProduct) -> None:
        """Changes a usual price to one near it, and any other price to the usual one."""
        product = await self._get_or_create(usual)
        near = (usual.price * self._random.randint(90, 110) / 100).quantize(_CENT)
        price = near if product.price == usual.price else usual.price
        if product.state is ProductState.ACTIVE and product.price != price:
            content = ProductContent(name=product.name, price=price)
            self._tally.price_changes += await self._put(product, content)
        self._repriced = None if price == usual.price else usual

    async def _withdraw_and_restore(self, product: Product) -> None:
        """Withdraws the product, orders it, and offers it again. A withdrawn product is only offered again."""
        content = ProductContent(name=product.name, price=product.price)
        if product.state is ProductState.ACTIVE:
            withdraw = partial(self._api.withdraw, product.code, product.version)
            wanted = _next_version(product, state=ProductState.WITHDRAWN)
            if not await self._apply("DELETE product", withdraw, wanted):
                return
            product = wanted
            await self._order_until_it_fails(product)
            await self._retries.pause(PAUSE_S / 5)
        self._tally.restored += await self._put(product, content)

    async def _order_until_it_fails(self, product: Product) -> None:
        """Orders the withdrawn product until an order fails: the validators read the withdrawal a moment later."""

        async def place_order() -> tuple[OrderOutcome, Product]:
            new, api = sample.order_of(product.code, product.price, self._random), self._random.choice(self._orders)
            posted = await self._retries.request("POST", lambda: api.post(new))
            outcome = await self._retries.request("GET validated", lambda: api.validated(posted.id, 10_000))
            return outcome, await self._retries.request("GET product", lambda: self._api.get(product.code))

        def complete(found: tuple[OrderOutcome, Product]) -> bool:
            outcome, now = found
            return _failed_as_withdrawn(outcome) or now.version > product.version  # somebody else offers it again

        outcome, _ = await self._retries.poll("order of a withdrawn product", place_order, complete)
        self._tally.failed_as_withdrawn += _failed_as_withdrawn(outcome)

    async def _put(self, product: Product, content: ProductContent) -> bool:
        put = partial(self._api.change, product.code, content, product.version)
        wanted = _next_version(product, price=content.price, state=ProductState.ACTIVE)
        return await self._apply("PUT product", put, wanted)

    async def _apply(self, what: str, change: Callable[[], Awaitable[Product]], wanted: Product) -> bool:
        """Changes a certain version. Returns whether it was changed: not if somebody else was first."""
        try:
            changed = await self._retries.request(what, change)
        except Mismatch as mismatch:
            if rejected_with(mismatch, 412):
                return False
            raise
        _require_same(changed, wanted, what)
        found = await self._retries.request("GET product", lambda: self._api.get(wanted.code))
        if found.version <= wanted.version:
            _require_same(found, wanted, "GET product")
        return True

    async def _get_or_create(self, new: NewProduct) -> Product:
        """Returns the product as it is now; offers it if it never was."""
        try:
            return await self._retries.request("GET product", lambda: self._api.get(new.code))
        except Mismatch as mismatch:
            if not rejected_with(mismatch, 404):
                raise
        return await self._retries.request("POST product", lambda: self._api.create(new))


def _failed_as_withdrawn(outcome: OrderOutcome) -> bool:
    reason = f"{outcome.order.product!r} was withdrawn"
    return outcome.state is OrderState.FAILED and any(reason in other for other in outcome.reasons)


def _next_version(product: Product, **changes: object) -> Product:
    return product.model_copy(update={**changes, "version": product.version + 1})


def _require_same(found: Product, wanted: Product, what: str) -> None:
    fields = {"code", "name", "price", "version", "state"}
    if found.model_dump(include=fields) != wanted.model_dump(include=fields):
        raise Mismatch(f"{what} answered {found!r}, wanted was {wanted!r}")
