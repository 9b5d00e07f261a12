"""`/v1/products`: create, read, change and withdraw products, with optimistic locking by ETag."""

from collections.abc import Callable, Mapping
from functools import partial

from aiohttp import web

from products_service import transitions
from products_service.store import ProductStore
from products_service.transitions import Withdrawn
from runtime.hosting import Answer, Endpoint, Host, ResponseHeader
from runtime.http.answers import HttpProblem, answer, existing, location
from runtime.http.conditional import StaleVersion, VersionedResource, etag
from runtime.http.inputs import CODE, message_of
from schemas.api import NewProduct, Product, ProductContent, ProductState
from schemas.identifiers import is_composed

PATH = "/v1/products"
_PRODUCT = VersionedResource("product")
_NEW = (ResponseHeader("Location", "URL of the product"), _PRODUCT.version)
_CURRENT = {200: Answer("The current version", Product, (_PRODUCT.version,))}


def endpoints(products: ProductStore) -> tuple[Endpoint, ...]:
    """Returns the endpoints."""

    async def create(_: Host, request: web.Request) -> web.Response:
        new = await message_of(request, NewProduct)
        product, is_new = await products.create(new)
        url = location(PATH, new.code)
        if product.state is ProductState.WITHDRAWN:
            detail = f"The product {new.code!r} was withdrawn. To offer it again, PUT it with its ETag as If-Match."
            raise HttpProblem(409, detail, headers=url)
        if differing := product.differing(new, "name", "price"):
            detail = f"There is a product {new.code!r} already, with another {' and another '.join(differing)}."
            raise HttpProblem(409, detail, headers=url)
        return _answer(product, 201 if is_new else 200, url)

    async def read(_: Host, request: web.Request) -> web.Response:
        code = CODE.of(request)
        return _answer(_existing(code, await products.get(code)))

    async def change(_: Host, request: web.Request) -> web.Response:
        code, expected = CODE.of(request), _PRODUCT.expected_of(request)
        content = await message_of(request, ProductContent)
        return await apply(code, partial(transitions.change, content=content, expected=expected))

    async def withdraw(_: Host, request: web.Request) -> web.Response:
        code, expected = CODE.of(request), _PRODUCT.expected_of(request)
        return await apply(code, partial(transitions.withdraw, expected=expected))

    async def apply(code: str, transition: Callable[[Product], Product | None]) -> web.Response:
        try:
            return _answer(_existing(code, await products.change(code, transition)))
        except StaleVersion:
            detail = f"The product {code!r} has another version by now. Read it, then repeat with its new ETag."
            raise HttpProblem(412, detail) from None
        except Withdrawn:
            detail = f"The product {code!r} was withdrawn. To offer it again, repeat with its ETag as If-Match."
            raise HttpProblem(409, detail) from None

    one = f"{PATH}/{{code}}"
    return (
        Endpoint(
            "POST",
            PATH,
            create,
            name="createProduct",
            summary="Create a product; idempotent: a repeated request changes nothing",
            tag="products",
            body=NewProduct,
            answers={
                201: Answer("The product is stored, and published soon", Product, _NEW),
                200: Answer("The product existed; its current version", Product, _NEW),
            },
            problems=(409,),
        ),
        Endpoint(
            "GET",
            one,
            read,
            name="getProduct",
            summary="Get a product, also a withdrawn one",
            tag="products",
            parameters=(CODE,),
            answers=_CURRENT,
        ),
        Endpoint(
            "PUT",
            one,
            change,
            name="changeProduct",
            summary="Change a product, or offer a withdrawn one again (requires If-Match)",
            tag="products",
            parameters=(CODE, _PRODUCT.expected_version),
            body=ProductContent,
            answers=_CURRENT,
            problems=(409, 412),
        ),
        Endpoint(
            "DELETE",
            one,
            withdraw,
            name="withdrawProduct",
            summary="Withdraw a product: from then on, orders for it fail",
            tag="products",
            parameters=(CODE, _PRODUCT.expected_version),
            answers=_CURRENT,
            problems=(412,),
        ),
    )


def _answer(product: Product, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return answer(product, status, {**(headers or {}), **etag(product.version)})


def _existing(code: str, product: Product | None) -> Product:
    form = "" if is_composed(code) else " The code is not in Unicode form NFC, in which products are offered."
    return existing(product, f"There is no product {code!r}.{form}")
