"""Product service: HTTP API on its database, and an outbox to `products`. It consumes nothing."""

from products_service import http
from products_service.models import OUTBOX
from products_service.settings import ProductsSettings
from products_service.store import ProductStore
from runtime.common.settings import Settings
from runtime.database.outbox import Outbox
from runtime.database.pool import Database
from runtime.hosting import ServiceDefinition
from runtime.model.service import Service
from schemas.topics import PRODUCTS


def build(settings: Settings) -> ServiceDefinition:
    """Builds the service definition with its database."""
    own = settings.of(ProductsSettings)
    database = Database("products", own.products_database_url, "products_service:migrations", settings)
    outbox = Outbox(database, OUTBOX, settings.produce_timeout_s)
    return ServiceDefinition(
        Service(name="products", inputs=(), outputs=(PRODUCTS,)),
        endpoints=http.endpoints(ProductStore(database, outbox)),
        database=database,
        outbox=outbox,
    )
