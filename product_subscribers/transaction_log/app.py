"""Transaction log: consumes products, appends each change to its database by a side effect."""

from product_subscribers.transaction_log import http
from product_subscribers.transaction_log.settings import ProductLogSettings
from product_subscribers.transaction_log.store import ProductLogStore
from runtime.common.settings import Settings
from runtime.database.pool import Database
from runtime.hosting import ServiceDefinition
from runtime.model.service import Input, Service, SideEffect
from schemas.messages import ProductEvent
from schemas.topics import PRODUCTS


def build(settings: Settings) -> ServiceDefinition:
    """Builds the service definition with its database."""
    own = settings.of(ProductLogSettings)
    migrations = "product_subscribers.transaction_log:migrations"
    database = Database("product-log", own.product_log_database_url, migrations, settings)
    log = ProductLogStore(database)
    entry = SideEffect("entry", ProductEvent, log.append)
    on_change = entry.enqueue_by(lambda event: event.event_id)
    return ServiceDefinition(
        Service(name="product-log", inputs=(Input(PRODUCTS, on_change),), outputs=(), side_effects=(entry,)),
        endpoints=http.endpoints(log),
        database=database,
    )
