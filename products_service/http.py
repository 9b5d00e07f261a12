"""`/v1/products`: create, read, change and withdraw products, with optimistic locking by ETag."""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any
from urllib.parse import quote

from aiohttp import web

from products_service import rules
from products_service.rules import ExpectedVersions, StaleVersion, Withdrawn, differing_fields
from products_service.store import ProductStore
from runtime.hosting import Host
from runtime.http.answers import HttpProblem, answer
from runtime.http.inputs import code_of, message_of
from runtime.http.openapi import CODE, body, problems, schemas_of
from schemas.api import InvalidParam, NewProduct, Product, ProductContent, ProductState
from schemas.identifiers import is_composed

PATH = "/v1/products"
_TAG = r'(W/)?"[!#-~]*"'
_IF_MATCH = rf"^ *(\*|{_TAG}( *, *{_TAG})*) *$"
"""Syntax of If-Match (RFC 9110, 13.1.1)."""


def routes(products: ProductStore) -> Callable[[Host], Iterable[web.RouteDef]]:
    """Returns the factory of the routes."""

    async def create(request: web.Request) -> web.Response:
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

    async def read(request: web.Request) -> web.Response:
        code = code_of(request)
        return _answer(_existing(code, await products.get(code)))

    async def change(request: web.Request) -> web.Response:
        code, expected = code_of(request), _expected_versions(request)
        content = await message_of(request, ProductContent)
        return await apply(code, partial(rules.change, content=content, expected=expected))

    async def withdraw(request: web.Request) -> web.Response:
        code, expected = code_of(request), _expected_versions(request)
        return await apply(code, partial(rules.withdraw, expected=expected))

    async def apply(code: str, transition: Callable[[Product], Product | None]) -> web.Response:
        try:
            return _answer(_existing(code, await products.change(code, transition)))
        except StaleVersion:
            detail = f"The product {code!r} has another version by now. Read it, then repeat with its new ETag."
            raise HttpProblem(412, detail) from None
        except Withdrawn:
            detail = f"The product {code!r} was withdrawn. To offer it again, repeat with its ETag as If-Match."
            raise HttpProblem(409, detail) from None

    one = f"{PATH}/{{code:[^/]+}}"
    return lambda _: (web.post(PATH, create), web.get(one, read), web.put(one, change), web.delete(one, withdraw))


def _answer(product: Product, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return answer(product, status, {**(headers or {}), "ETag": f'"{product.version}"'})


def _existing(code: str, product: Product | None) -> Product:
    if product is None:
        form = "" if is_composed(code) else " The code is not in Unicode form NFC, in which products are offered."
        raise HttpProblem(404, f"There is no product {code!r}.{form}")
    return product


def _expected_versions(request: web.Request) -> ExpectedVersions:
    """Versions listed in If-Match (RFC 9110, 13.1.1); `None` without the header, or for `*`."""
    header = request.headers.get("If-Match")
    if header is None or header.strip() == "*":
        return None
    if not re.fullmatch(_IF_MATCH, header):
        invalid = InvalidParam(name="If-Match", reason='must be the ETag of the product in its quotes, such as "3"')
        raise HttpProblem(400, f"{invalid.name} {invalid.reason}.", errors=[invalid])
    # Weak and other ETags match no version.
    return {int(version) for version in re.findall(r'(?<!W/)"(0|[1-9][0-9]{0,18})"', header)}


def openapi() -> Mapping[str, Any]:
    """Returns paths and schemas."""
    if_match = {
        "name": "If-Match",
        "in": "header",
        "description": "ETag of the expected version; 412 if the product has another one",
        "schema": {"type": "string", "pattern": _IF_MATCH, "examples": ['"3"']},
    }
    etag = {"ETag": {"description": "Version of the product", "schema": {"type": "string"}}}
    location = {"Location": {"description": "URL of the product", "schema": {"type": "string"}}}
    now = {"description": "The current version", "headers": etag, **body(Product)}
    return {
        "paths": {
            PATH: {
                "post": {
                    "operationId": "createProduct",
                    "summary": "Create a product; idempotent: a repeated request changes nothing",
                    "tags": ["products"],
                    "requestBody": {"required": True, **body(NewProduct)},
                    "responses": {
                        "201": {"description": "The product is stored, and published soon", "headers": location | etag}
                        | body(Product),
                        "200": {"description": "The product existed; its current version", "headers": location | etag}
                        | body(Product),
                        **problems(400, 409, 413, 415, 500, 503),
                    },
                }
            },
            f"{PATH}/{{code}}": {
                "get": {
                    "operationId": "getProduct",
                    "summary": "Get a product, also a withdrawn one",
                    "tags": ["products"],
                    "parameters": [CODE],
                    "responses": {"200": now, **problems(400, 404, 500, 503)},
                },
                "put": {
                    "operationId": "changeProduct",
                    "summary": "Change a product, or offer a withdrawn one again (requires If-Match)",
                    "tags": ["products"],
                    "parameters": [CODE, if_match],
                    "requestBody": {"required": True, **body(ProductContent)},
                    "responses": {"200": now, **problems(400, 404, 409, 412, 413, 415, 500, 503)},
                },
                "delete": {
                    "operationId": "withdrawProduct",
                    "summary": "Withdraw a product: from then on, orders for it fail",
                    "tags": ["products"],
                    "parameters": [CODE, if_match],
                    "responses": {"200": now, **problems(400, 404, 412, 500, 503)},
                },
            },
        },
        "components": {"schemas": schemas_of(NewProduct, ProductContent, Product)},
    }
