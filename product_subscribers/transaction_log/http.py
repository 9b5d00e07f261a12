"""`GET /v1/product-log/{code}`: the changes of a product."""

from aiohttp import web

from product_subscribers.transaction_log.store import ProductLogStore
from runtime.hosting import Answer, Endpoint, Host
from runtime.http.answers import HttpProblem, answer
from runtime.http.inputs import CODE
from schemas.api import ProductLog


def endpoints(log: ProductLogStore) -> tuple[Endpoint, ...]:
    """Returns the endpoint."""

    async def entries(_: Host, request: web.Request) -> web.Response:
        code = CODE.of(request)
        found = await log.latest(code)
        if not found:
            raise HttpProblem(404, f"No change of a product {code!r} is in the log (yet).")
        return answer(ProductLog(code=code, entries=found))

    return (
        Endpoint(
            "GET",
            "/v1/product-log/{code}",
            entries,
            name="getProductLog",
            summary="Get the latest changes of a product",
            tag="products",
            parameters=(CODE,),
            answers={200: Answer("The changes logged so far", ProductLog)},
        ),
    )
