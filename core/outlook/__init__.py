"""When a generation should be finished, and where it stands until then."""

from core.outlook.estimate import Outlook
from core.outlook.outlooks import Outlooks, next_window_at, released_work, task_of

__all__ = ["Outlook", "Outlooks", "next_window_at", "released_work", "task_of"]
