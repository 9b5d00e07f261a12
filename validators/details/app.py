"""The details validator: consumes orders, holds nothing, produces verdicts."""

from runtime.hosting import Hosted
from runtime.service import Input, Service
from runtime.settings import Settings
from schemas.topics import ORDER_VALIDATIONS, ORDERS
from validators.details import rule


def build(_settings: Settings) -> Hosted:
    """The service; it has no settings."""
    return Hosted(
        Service(
            name="details",
            inputs=(Input(ORDERS, rule.on_order),),
            outputs=(ORDER_VALIDATIONS,),
        )
    )
