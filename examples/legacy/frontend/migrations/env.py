"""Alembic environment."""

from examples.legacy.frontend.models import MODELS
from runtime.database import migrations

migrations.run(MODELS)
