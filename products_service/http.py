"""`/v1/products`: create, read, change and withdraw products, with optimistic locking by ETag."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from urllib.parse import quote

from aiohttp import web

from products_service import transitions
from products_service.store import ProductStore
from products_service.transitions import ExpectedVersions, StaleVersion, Withdrawn, differing_fields
from runtime.hosting import Answer, Endpoint, Host, Parameter, ResponseHeader
from runtime.http.answers import HttpProblem, answer
from runtime.http.inputs import CODE, message_of
from runtime.http.validation import invalid_input
from schemas.api import NewProduct, Product, ProductContent, ProductState
from schemas.identifiers import is_composed

PATH = "/v1/products"
_TAG = r'(W/)?"[!#-~]*"'
_IF_MATCH = rf"^ *(\*|{_TAG}( *, *{_TAG})*) *$"
"""Syntax of If-Match (RFC 9110, 13.1.1)."""

_EXPECTED_VERSION = Parameter(
    "If-Match",
    "header",
    {"type": "string", "pattern": _IF_MATCH, "examples": ['"3"']},
    "ETag of the expected version; 412 if the product has another one",
)
_VERSION = ResponseHeader("ETag", "Version of the product")
_NEW = (ResponseHeader("Location", "URL of the product"), _VERSION)
_CURRENT = {200: Answer("The current version", Product, (_VERSION,))}


def endpoints(products: ProductStore) -> tuple[Endpoint, ...]:
    """Returns the endpoints."""

    async def create(_: Host, request: web.Request) -> web.Response:
        new = await message_of(request, NewProduct)
        product, is_new = await products.create(new)
        location = {"Location": f"{PATH}/{quote(new.code, safe='')}"}
        if product.state is ProductState.WITHDRAWN:
            detail = f"The product {new.code!r} was withdrawn. To offer it again, PUT it with its ETag as If-Match."
            raise HttpProblem(409, detail, headers=location)
        if differing := differing_fields(product, new):
            detail = f"There is a product {new.code!r} already, with another {' and another '.join(differing)}."
            raise HttpProblem(409, detail, headers=location)
        return _answer(product, 201 if is_new else 200, location)

    async def read(_: Host, request: web.Request) -> web.Response:
        code = CODE.of(request)
        return _answer(_existing(code, await products.get(code)))

    async def change(_: Host, request: web.Request) -> web.Response:
        code, expected = CODE.of(request), _expected_versions(request)
        content = await message_of(request, ProductContent)
        return await apply(code, partial(transitions.change, content=content, expected=expected))

    async def withdraw(_: Host, request: web.Request) -> web.Response:
        code, expected = CODE.of(request), _expected_versions(request)
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
            parameters=(CODE, _EXPECTED_VERSION),
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
            parameters=(CODE, _EXPECTED_VERSION),
            answers=_CURRENT,
            problems=(412,),
        ),
    )


def _answer(product: Product, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return answer(product, status, {**(headers or {}), "ETag": f'"{product.version}"'})


def _existing(code: str, product: Product | None) -> Product:
    if product is None:
        form = "" if is_composed(code) else " The code is not in Unicode form NFC, in which products are offered."
        raise HttpProblem(404, f"There is no product {code!r}.{form}")
    return product


def _expected_versions(request: web.Request) -> ExpectedVersions:
    """Versions listed in If-Match (RFC 9110, 13.1.1); `None` without the header, or for `*`."""
    header = request.headers.get(_EXPECTED_VERSION.name)
    if header is None or header.strip() == "*":
        return None
    if not re.fullmatch(_IF_MATCH, header):
        raise invalid_input(_EXPECTED_VERSION.name, 'must be the ETag of the product in its quotes, such as "3"')
    # Weak and other ETags match no version.
    return {int(version) for version in re.findall(r'(?<!W/)"(0|[1-9][0-9]{0,18})"', header)}
