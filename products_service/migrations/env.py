"""Alembic environment."""

from products_service.models import MODELS
from runtime.database import migrations

migrations.run(MODELS)
