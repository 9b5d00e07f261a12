"""`GET /v1/portal/checkins/{orderNo}`: the check-ins of an order."""

from dataclasses import replace

from aiohttp import web

from portal_service.processors import CHECK_INS_VIEW
from runtime.hosting import Answer
from runtime.http.answers import answer, existing
from runtime.http.inputs import ORDER_ID
from runtime.http.queries import row_query
from schemas.api import PortalCheckins


def _check_ins(order_no: str, found: PortalCheckins | None) -> web.Response:
    return answer(existing(found, f"There is no check-in for an order {order_no!r} (yet)."))


ENDPOINTS = (
    row_query(
        "/v1/portal/checkins/{orderNo}",
        CHECK_INS_VIEW,
        replace(ORDER_ID, name="orderNo"),
        _check_ins,
        name="getCheckInsOfOrder",
        summary="Get the check-ins of an order and their status",
        tag="portal",
        answers={200: Answer("The check-ins that have arrived", PortalCheckins)},
    ),
)
