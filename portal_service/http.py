"""`GET /v1/portal/checkins/{orderNo}`: the check-ins of an order."""

from dataclasses import replace
from functools import partial

from aiohttp import web

from portal_service.processors import CHECK_INS_VIEW
from runtime.hosting import Answer, Endpoint
from runtime.http.answers import HttpProblem, answer
from runtime.http.inputs import ORDER_ID, order_id_of
from runtime.http.routing import row_query
from schemas.api import PortalCheckins

_ORDER_NO = replace(ORDER_ID, name="orderNo")


def _check_ins(order_no: str, found: PortalCheckins | None) -> web.Response:
    if found is None:
        raise HttpProblem(404, f"There is no check-in for an order {order_no!r} (yet).")
    return answer(found)


ENDPOINTS = (
    Endpoint(
        "GET",
        "/v1/portal/checkins/{orderNo}",
        row_query(CHECK_INS_VIEW, partial(order_id_of, name=_ORDER_NO.name), _check_ins),
        name="getCheckInsOfOrder",
        summary="Get the check-ins of an order and their status",
        tag="portal",
        parameters=(_ORDER_NO,),
        routed=True,
        answers={200: Answer("The check-ins that have arrived", PortalCheckins)},
    ),
)
