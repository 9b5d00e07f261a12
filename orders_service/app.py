"""Orders service: consumes orders and verdicts, decides each order, answers HTTP."""

from datetime import timedelta

from orders_service import http
from orders_service.processors import EVENTS, STAGES, OrderAggregator
from orders_service.settings import OrdersSettings
from orders_service.state import CHECKS, ORDERS_VIEW
from runtime.common.settings import Settings
from runtime.hosting import ServiceDefinition
from runtime.model.service import Input, Service
from schemas.topics import CANCELLATIONS, FULFILMENTS, ORDER_VALIDATIONS, ORDERS, REQUIRED_CHECKS


def build(settings: Settings) -> ServiceDefinition:
    """Builds the service definition."""
    own = settings.of(OrdersSettings)
    aggregator = OrderAggregator(
        required=tuple(dict.fromkeys(own.required_checks)),
        deadline=timedelta(seconds=own.validation_deadline_s),
    )
    return ServiceDefinition(
        Service(
            name="orders",
            inputs=(
                Input(ORDERS, aggregator.on_order),
                Input(ORDER_VALIDATIONS, aggregator.on_verdict),
                Input(FULFILMENTS, aggregator.on_fulfilled),
                Input(CANCELLATIONS, aggregator.on_cancellation),
                Input(REQUIRED_CHECKS, aggregator.on_required_checks),
            ),
            outputs=(ORDERS,),
            tables=(ORDERS_VIEW, CHECKS),
            timers=aggregator.timers,
            events=EVENTS,
            stages=STAGES,
        ),
        endpoints=http.endpoints(aggregator),
    )
