"""Products that change while they are ordered: prices now and then, and one that is withdrawn and offered again.

While it is withdrawn it is ordered, and the orders have to fail for that.
"""

from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from functools import partial
from random import Random

from ecosystem.clients.api import OrdersApi, ProductsApi
from ecosystem.loadgen import sample
from ecosystem.loadgen.patience import Mismatch, RetryDeadline, refused_with
from ecosystem.loadgen.tally import Tally
from schemas.api import NewProduct, OrderOutcome, Product, ProductContent, ProductState
from schemas.messages import OrderState

PAUSE_S = 10.0
"""Between two changes: so seldom that nobody takes them for suspicious."""
_WITHDRAWN_EVERY = 5
_CENT = Decimal("0.01")


class ProductChanges:
    """Changes the sample products, and reads back each change. Somebody else may change them, too."""

    def __init__(
        self, api: ProductsApi, orders: Sequence[OrdersApi], random: Random, patience: RetryDeadline, tally: Tally
    ) -> None:
        self._api = api
        self._orders = orders
        self._random = random
        self._patience = patience
        self._tally = tally

    async def change(self, number: int) -> None:
        """The change of a number, from 0. Raises `Mismatch` and `Stopped`."""
        if number % _WITHDRAWN_EVERY == 1:
            await self._withdraw_and_return(await self._found(sample.seasonal()))
        else:
            await self._change_price(self._random.choice(sample.products()))

    async def _change_price(self, usual: NewProduct) -> None:
        product = await self._found(usual)
        near = usual.price * self._random.randint(90, 110) / 100
        content = ProductContent(name=product.name, price=near.quantize(_CENT))
        if product.state is ProductState.ACTIVE and product.price != content.price:
            self._tally.prices += await self._put(product, content)

    async def _withdraw_and_return(self, product: Product) -> None:
        """One that an earlier run has left withdrawn is only offered again."""
        content = ProductContent(name=product.name, price=product.price)
        if product.state is ProductState.ACTIVE:
            withdraw = partial(self._api.withdraw, product.code, product.version)
            wanted = _next(product, state=ProductState.WITHDRAWN)
            if not await self._done("DELETE product", withdraw, wanted):
                return
            product = wanted
            await self._turned_away(product)
            await self._patience.rest(PAUSE_S / 5)
        self._tally.returns += await self._put(product, content)

    async def _turned_away(self, product: Product) -> None:
        """Orders the product until that fails for the withdrawal, which takes a moment to get around."""

        async def look() -> tuple[OrderOutcome, Product]:
            new, here = sample.order_of(product.code, product.price, self._random), self._random.choice(self._orders)
            posted = await self._patience.request("POST", lambda: here.post(new))
            outcome = await self._patience.request("GET validated", lambda: here.validated(posted.id, 10_000))
            return outcome, await self._patience.request("GET product", lambda: self._api.get(product.code))

        def enough(seen: tuple[OrderOutcome, Product]) -> bool:
            return _withdrawn(seen[0]) or seen[1].version > product.version  # somebody else offers it again

        outcome, _ = await self._patience.until("order of a withdrawn product", look, enough)
        self._tally.turned_away += _withdrawn(outcome)

    async def _put(self, product: Product, content: ProductContent) -> bool:
        put = partial(self._api.change, product.code, content, product.version)
        return await self._done("PUT product", put, _next(product, price=content.price, state=ProductState.ACTIVE))

    async def _done(self, what: str, change: Callable[[], Awaitable[Product]], wanted: Product) -> bool:
        """Whether the change was made. It names the version it is for: if somebody was quicker, it was not."""
        try:
            changed = await self._patience.request(what, change)
        except Mismatch as mismatch:
            if refused_with(mismatch, 412):
                return False
            raise
        _same(changed, wanted, what)
        found = await self._patience.request("GET product", lambda: self._api.get(wanted.code))
        if found.version <= wanted.version:
            _same(found, wanted, "GET product")
        return True

    async def _found(self, new: NewProduct) -> Product:
        """As it is now; offered, if it never was."""
        try:
            return await self._patience.request("GET product", lambda: self._api.get(new.code))
        except Mismatch as mismatch:
            if not refused_with(mismatch, 404):
                raise
        return await self._patience.request("POST product", lambda: self._api.create(new))


def _withdrawn(outcome: OrderOutcome) -> bool:
    reason = f"{outcome.order.product!r} was withdrawn"
    return outcome.state is OrderState.FAILED and any(reason in said for said in outcome.reasons)


def _next(product: Product, **changes: object) -> Product:
    return product.model_copy(update={**changes, "version": product.version + 1})


def _same(found: Product, wanted: Product, what: str) -> None:
    fields = {"code", "name", "price", "version", "state"}
    if found.model_dump(include=fields) != wanted.model_dump(include=fields):
        raise Mismatch(f"{what} answered {found!r}, wanted was {wanted!r}")
