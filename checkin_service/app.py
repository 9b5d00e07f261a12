"""Check-in service: HTTP API on its database, outbox to `home-checkins`, compensation of rejections."""

from zoneinfo import ZoneInfo

from checkin_service import http
from checkin_service.models import OUTBOX
from checkin_service.settings import CheckinSettings
from checkin_service.store import CheckInStore
from runtime.common.settings import Settings
from runtime.database.outbox import Outbox
from runtime.database.pool import Database
from runtime.hosting import ServiceDefinition
from runtime.model.service import Input, Service, SideEffect
from schemas.messages import CheckinRejected
from schemas.topics import CHECKIN_REJECTIONS, HOME_CHECKINS


def build(settings: Settings) -> ServiceDefinition:
    """Builds the service definition with its database."""
    own = settings.of(CheckinSettings)
    database = Database("checkin", own.checkin_database_url, "checkin_service:migrations", settings)
    outbox = Outbox(database, OUTBOX, settings.produce_timeout_s)
    check_ins = CheckInStore(database, outbox)
    reject = SideEffect("rejection", CheckinRejected, check_ins.reject)
    return ServiceDefinition(
        Service(
            name="checkin",
            inputs=(Input(CHECKIN_REJECTIONS, reject.enqueue_by(lambda rejected: rejected.event_id)),),
            outputs=(HOME_CHECKINS,),
            side_effects=(reject,),
        ),
        endpoints=http.endpoints(check_ins, ZoneInfo(own.checkin_time_zone)),
        database=database,
        outbox=outbox,
        port=own.checkin_port,
    )
