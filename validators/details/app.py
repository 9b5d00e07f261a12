"""Details validator: consumes orders and products, keeps past verdicts, produces verdicts."""

from runtime.common.settings import Settings
from runtime.hosting import ServiceDefinition
from runtime.model.service import Input, Start
from runtime.state import versions
from runtime.validator import validator
from schemas.messages import BuiltInCheck
from schemas.topics import PRODUCTS
from validators.details.processors import DetailsCheck, failure_reason
from validators.details.settings import DetailsSettings
from validators.details.state import OFFERS


def build(settings: Settings) -> ServiceDefinition:
    """Builds the service definition."""
    return validator(
        "details",
        BuiltInCheck.ORDER_DETAILS_CHECK,
        precheck=failure_reason,
        judge=DetailsCheck(settings.of(DetailsSettings)).judge,
        by=("product", lambda o: o.product),
        inputs=(Input(PRODUCTS, OFFERS.on_product),),
        tables=(OFFERS.table,),
        start=Start.BEGINNING,
        events=versions.EVENTS,
    )
