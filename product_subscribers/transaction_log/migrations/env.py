"""Alembic environment."""

from product_subscribers.transaction_log.models import MODELS
from runtime.database import migrations

migrations.run(MODELS)
