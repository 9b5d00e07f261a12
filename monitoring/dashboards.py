"""All dashboards. `python -m monitoring` writes them as files."""

from monitoring.backlog import BACKLOG
from monitoring.business import BUSINESS
from monitoring.overview import OVERVIEW
from monitoring.runtime import RUNTIME
from monitoring.stages import STAGES_DASHBOARD

DASHBOARDS = (OVERVIEW, STAGES_DASHBOARD, BACKLOG, BUSINESS, RUNTIME)
