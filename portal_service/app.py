"""Portal: consumes check-ins and rejections, keeps a read model, answers HTTP."""

from portal_service import http
from portal_service.processors import CHECK_INS_VIEW, on_check_in, on_rejected
from runtime.common.settings import Settings
from runtime.hosting import ServiceDefinition
from runtime.model.service import Input, Service
from schemas.topics import CHECKIN_REJECTIONS, HOME_CHECKINS


def build(settings: Settings) -> ServiceDefinition:
    """Builds the service definition."""
    return ServiceDefinition(
        Service(
            name="portal",
            inputs=(Input(HOME_CHECKINS, on_check_in), Input(CHECKIN_REJECTIONS, on_rejected)),
            outputs=(),
            tables=(CHECK_INS_VIEW,),
        ),
        endpoints=http.ENDPOINTS,
    )
