"""The check-in service: answers HTTP from its database, announces by its outbox, consumes what others reject."""

from zoneinfo import ZoneInfo

from checkin_service import http
from checkin_service.compensation import build_compensation
from checkin_service.models import OUTBOX
from checkin_service.store import CheckIns
from runtime.common.settings import Settings
from runtime.database.outbox import Outbox
from runtime.database.pool import Database
from runtime.hosting import ServiceDefinition
from runtime.model.service import Input, Service
from schemas.topics import CHECKIN_REJECTIONS, HOME_CHECKINS


def build(settings: Settings) -> ServiceDefinition:
    """The service with its database."""
    database = Database("checkin", settings.checkin_database_url, "checkin_service:migrations", settings)
    outbox = Outbox(database, OUTBOX, settings.produce_timeout_s)
    check_ins = CheckIns(database, outbox)
    reject, on_rejected = build_compensation(check_ins)
    return ServiceDefinition(
        Service(
            name="checkin",
            inputs=(Input(CHECKIN_REJECTIONS, on_rejected),),
            outputs=(HOME_CHECKINS,),
            side_effects=(reject,),
        ),
        routes=http.routes(check_ins, ZoneInfo(settings.checkin_time_zone)),
        openapi=http.openapi,
        database=database,
        outbox=outbox,
        port=settings.checkin_port,
    )
