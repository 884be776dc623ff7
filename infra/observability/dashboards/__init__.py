"""Grafana's dashboards, a module each; ``python -m infra.observability.dashboards`` writes them out.

The files in ``dashboards.d/`` are committed, so that whoever runs Grafana needs no Python, and a test
compares the two.
"""

from pathlib import Path
from typing import Final

from infra.observability.dashboards.api import API
from infra.observability.dashboards.batch import BATCH
from infra.observability.dashboards.service import SERVICE
from infra.observability.dashboards.workers import WORKERS

FOLDER: Final = Path(__file__).parents[1] / "dashboards.d"
DASHBOARDS: Final = (SERVICE, API, WORKERS, BATCH)
