"""`/v1/products`: create, change, withdraw and look at products; changes may name the version they are meant for."""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any
from urllib.parse import quote

from aiohttp import web

from products_service.rules import Expected, StaleVersion, Withdrawn, changed, differing, withdrawn
from products_service.store import Products
from runtime.hosting import Host
from runtime.http.answers import HttpProblem, answer
from runtime.http.inputs import code_of, message_of
from runtime.http.openapi import CODE, body, problems, schemas_of
from schemas.api import InvalidParam, NewProduct, Product, ProductContent, ProductState
from schemas.identifiers import is_composed

PATH = "/v1/products"
_TAG = r'(W/)?"[!#-~]*"'
_IF_MATCH = rf"^ *(\*|{_TAG}( *, *{_TAG})*) *$"
"""RFC 9110, 13.1.1."""


def routes(products: Products) -> Callable[[Host], Iterable[web.RouteDef]]:
    """The routes."""

    async def create(request: web.Request) -> web.Response:
        new = await message_of(request, NewProduct)
        product, is_new = await products.create(new)
        location = {"Location": f"{PATH}/{quote(new.code, safe='')}"}
        if product.state is ProductState.WITHDRAWN:
            detail = f"The product {new.code!r} was withdrawn. To offer it again, PUT it with its ETag as If-Match."
            raise HttpProblem(409, detail, headers=location)
        if different := differing(product, new):
            detail = f"There is a product {new.code!r} already, with another {' and another '.join(different)}."
            raise HttpProblem(409, detail, headers=location)
        return _shown(product, 201 if is_new else 200, location)

    async def look(request: web.Request) -> web.Response:
        code = code_of(request)
        return _shown(_known(code, await products.get(code)))

    async def change(request: web.Request) -> web.Response:
        code, expected = code_of(request), _expected(request)
        content = await message_of(request, ProductContent)
        return await _changed(code, partial(changed, content=content, expected=expected))

    async def withdraw(request: web.Request) -> web.Response:
        code, expected = code_of(request), _expected(request)
        return await _changed(code, partial(withdrawn, expected=expected))

    async def _changed(code: str, become: Callable[[Product], Product | None]) -> web.Response:
        try:
            return _shown(_known(code, await products.change(code, become)))
        except StaleVersion:
            detail = f"The product {code!r} has another version by now. Look at it, then repeat with its new ETag."
            raise HttpProblem(412, detail) from None
        except Withdrawn:
            detail = f"The product {code!r} was withdrawn. To offer it again, repeat with its ETag as If-Match."
            raise HttpProblem(409, detail) from None

    one = f"{PATH}/{{code:[^/]+}}"
    return lambda _: (web.post(PATH, create), web.get(one, look), web.put(one, change), web.delete(one, withdraw))


def _shown(product: Product, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return answer(product, status, {**(headers or {}), "ETag": f'"{product.version}"'})


def _known(code: str, product: Product | None) -> Product:
    if product is None:
        form = "" if is_composed(code) else " The code is not in Unicode form NFC, in which products are offered."
        raise HttpProblem(404, f"There is no product {code!r}.{form}")
    return product


def _expected(request: web.Request) -> Expected:
    """The versions in If-Match (RFC 9110, 13.1.1); `None` without it, or if any will do."""
    header = request.headers.get("If-Match")
    if header is None or header.strip() == "*":
        return None
    if not re.fullmatch(_IF_MATCH, header):
        fault = InvalidParam(name="If-Match", reason='must be the ETag of the product in its quotes, such as "3"')
        raise HttpProblem(400, f"{fault.name} {fault.reason}.", errors=[fault])
    # Weak ones, and text that is no version of ours, are versions that no product has.
    return {int(version) for version in re.findall(r'(?<!W/)"(0|[1-9][0-9]{0,18})"', header)}


def openapi() -> Mapping[str, Any]:
    """Paths and schemas."""
    if_match = {
        "name": "If-Match",
        "in": "header",
        "description": "ETag of the version that is meant; another one is answered 412",
        "schema": {"type": "string", "pattern": _IF_MATCH, "examples": ['"3"']},
    }
    etag = {"ETag": {"description": "The version", "schema": {"type": "string"}}}
    location = {"Location": {"description": "Where the product is", "schema": {"type": "string"}}}
    now = {"description": "As it is now", "headers": etag, **body(Product)}
    return {
        "paths": {
            PATH: {
                "post": {
                    "operationId": "createProduct",
                    "summary": "Offer a new product; the same request again is the same product",
                    "tags": ["products"],
                    "requestBody": {"required": True, **body(NewProduct)},
                    "responses": {
                        "201": {"description": "It is kept and will be announced", "headers": location | etag}
                        | body(Product),
                        "200": {"description": "It was there already, and is as it is now", "headers": location | etag}
                        | body(Product),
                        **problems(400, 409, 413, 415, 500, 503),
                    },
                }
            },
            f"{PATH}/{{code}}": {
                "get": {
                    "operationId": "getProduct",
                    "summary": "A product, also one that was withdrawn",
                    "tags": ["products"],
                    "parameters": [CODE],
                    "responses": {"200": now, **problems(400, 404, 500, 503)},
                },
                "put": {
                    "operationId": "changeProduct",
                    "summary": "Change a product; offer one again that was withdrawn, which needs If-Match",
                    "tags": ["products"],
                    "parameters": [CODE, if_match],
                    "requestBody": {"required": True, **body(ProductContent)},
                    "responses": {"200": now, **problems(400, 404, 409, 412, 413, 415, 500, 503)},
                },
                "delete": {
                    "operationId": "withdrawProduct",
                    "summary": "Withdraw a product: orders for it fail from then on",
                    "tags": ["products"],
                    "parameters": [CODE, if_match],
                    "responses": {"200": now, **problems(400, 404, 412, 500, 503)},
                },
            },
        },
        "components": {"schemas": schemas_of(NewProduct, ProductContent, Product)},
    }
