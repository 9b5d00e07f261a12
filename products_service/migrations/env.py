"""Run by Alembic."""

from products_service.models import MODELS
from runtime import migrations

migrations.run(MODELS)
