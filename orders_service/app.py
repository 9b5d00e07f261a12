"""Orders service: its inputs, outputs, table and endpoints."""

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
    """Builds the service definition. Raises `ValueError` for an unknown required check."""
    aggregator = OrderAggregator(
        required=tuple(dict.fromkeys(CheckType(check) for check in settings.required_checks)),
        deadline=timedelta(seconds=settings.validation_deadline_s),
        at_least_once=settings.at_least_once,
    )
    return ServiceDefinition(
        Service(
            name="orders",
            inputs=(
                Input(ORDERS, aggregator.on_order),
                Input(ORDER_VALIDATIONS, aggregator.on_verdict),
                Input(FULFILMENTS, aggregator.on_fulfilled),
            ),
            outputs=(ORDERS,),
            tables=(ORDERS_VIEW,),
            on_timer=aggregator.on_timer,
        ),
        endpoints=http.ENDPOINTS,
    )
