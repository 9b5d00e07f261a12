"""Alembic environment."""

from history_service.models import MODELS
from runtime.database import migrations

migrations.run(MODELS, partitioned="records")
