"""Fulfilment service: consumes orders, payments and check-ins, produces fulfilments and rejections."""

from datetime import timedelta

from fulfilment_service import http
from fulfilment_service.processors import EVENTS, PAYMENTS_BY_ORDER, FulfilmentGate
from fulfilment_service.settings import FulfilmentSettings
from fulfilment_service.state import CHECK_INS, PAYMENTS_COUNTED, PROGRESS, SEEN_CHECK_INS
from runtime.common.settings import Settings
from runtime.hosting import ServiceDefinition
from runtime.model.service import Expiring, Input, Service, repartition_to
from schemas.messages import Need
from schemas.topics import CANCELLATIONS, CHECKIN_REJECTIONS, FULFILMENTS, HOME_CHECKINS, ORDERS, PAYMENTS, REFUNDS


def build(settings: Settings) -> ServiceDefinition:
    """Builds the service definition. Raises `ValueError` for an unknown prerequisite."""
    own = settings.of(FulfilmentSettings)
    needs = tuple(dict.fromkeys(Need(need) for need in own.fulfilment_needs))
    gate = FulfilmentGate(
        needs,
        timedelta(seconds=own.checkin_patience_s),
        own.currency,
        timedelta(seconds=own.payment_deadline_s),
    )
    return ServiceDefinition(
        Service(
            name="fulfilment",
            inputs=(
                Input(ORDERS, gate.on_order),
                Input(PAYMENTS, repartition_to(PAYMENTS_BY_ORDER)),
                Input(PAYMENTS_BY_ORDER, gate.on_payment),
                Input(HOME_CHECKINS, gate.on_check_in),
            ),
            outputs=(PAYMENTS_BY_ORDER, FULFILMENTS, CHECKIN_REJECTIONS, CANCELLATIONS, REFUNDS),
            tables=(PROGRESS, PAYMENTS_COUNTED, CHECK_INS.table),
            timers=gate.timers,
            ttl_tables=(Expiring(SEEN_CHECK_INS),),
            events=EVENTS,
        ),
        endpoints=http.endpoints(needs, own.currency),
    )
