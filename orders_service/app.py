"""The orders service: consumes orders and verdicts, holds the view of every order, announces what became of it."""

from datetime import timedelta

from orders_service import http
from orders_service.aggregate import OrderAggregator
from orders_service.state import ORDERS_VIEW
from runtime.common.settings import Settings
from runtime.hosting import ServiceDefinition
from runtime.model.service import Input, Service
from schemas.messages import CheckType
from schemas.topics import FULFILMENTS, ORDER_VALIDATIONS, ORDERS


def build(settings: Settings) -> ServiceDefinition:
    """The service with its settings. Raises `ValueError` if a required check is none that exists."""
    gathering = OrderAggregator(
        required=tuple(dict.fromkeys(CheckType(check) for check in settings.required_checks)),
        deadline=timedelta(seconds=settings.validation_deadline_s),
        repeats=settings.at_least_once,
    )
    return ServiceDefinition(
        Service(
            name="orders",
            inputs=(
                Input(ORDERS, gathering.on_order),
                Input(ORDER_VALIDATIONS, gathering.on_verdict),
                Input(FULFILMENTS, gathering.on_fulfilled),
            ),
            outputs=(ORDERS,),
            tables=(ORDERS_VIEW,),
            on_timer=gathering.on_timer,
        ),
        routes=http.routes,
        openapi=http.openapi,
    )
