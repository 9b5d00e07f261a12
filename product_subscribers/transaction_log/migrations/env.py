"""Run by Alembic."""

from product_subscribers.transaction_log.models import MODELS
from runtime import migrations

migrations.run(MODELS)
