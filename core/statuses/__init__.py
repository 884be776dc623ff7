"""The live status of generations, for all who follow them in this process."""

from core.statuses.statuses import Statuses
from core.statuses.watch import Follower, Status

__all__ = ["Follower", "Status", "Statuses"]
