"""Run by Alembic."""

from checkin_service.models import MODELS
from runtime import migrations

migrations.run(MODELS)
