"""History service: stores every record of every public topic, and the stages of every order, in its database."""

from history_service.explanations import Explainer
from history_service.http import endpoints
from history_service.maintenance import Maintenance
from history_service.settings import HistorySettings
from history_service.sink import sink
from runtime.common.clock import utc_now
from runtime.common.settings import Settings
from runtime.database.pool import Database
from runtime.hosting import Job, ServiceDefinition
from runtime.model.service import Service

MIGRATIONS = "history_service:migrations"
"""Alembic's folder of the database."""


def build(settings: Settings) -> ServiceDefinition:
    """Builds the service definition with its database."""
    own = settings.of(HistorySettings)
    database = Database("history", own.history_database_url, MIGRATIONS, settings)
    maintenance = Maintenance(database, own.history_retention_months, utc_now)
    return ServiceDefinition(
        Service(name="history", inputs=(), outputs=()),
        endpoints(database, Explainer.of(own)),
        database=database,
        sink=sink(maintenance),
        jobs=(Job("history maintenance", Maintenance.EVERY_S, maintenance.run),),
    )
