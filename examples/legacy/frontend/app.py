"""The frontend sink: a service without processors that stores orders and customers in a database."""

from pydantic import SecretStr

from examples.legacy.frontend import rows
from runtime.common.settings import Settings
from runtime.database.pool import Database
from runtime.hosting import ServiceDefinition
from runtime.model.service import Service
from runtime.model.sink import Sink
from schemas.topics import CUSTOMERS, ORDERS

NAME = "legacy-frontend"


def build(settings: Settings, url: SecretStr | None) -> ServiceDefinition:
    """Builds the service definition. `url` is the address of the frontend database."""
    return ServiceDefinition(
        Service(name=NAME, inputs=(), outputs=()),
        database=Database(NAME, url, "examples.legacy.frontend:migrations", settings),
        sink=Sink(
            topics=(ORDERS.name, CUSTOMERS.name),
            prepare=rows.prepare,
            prepare_raw=rows.prepare_raw,
            write=rows.write,
        ),
    )
