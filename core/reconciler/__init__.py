"""Ends what nobody else will end, and brings back what the broker has lost."""

from core.reconciler.dead_letters import retry
from core.reconciler.lost_jobs import LostJobs
from core.reconciler.reconciler import OVERDUE, Reconciler

__all__ = ["OVERDUE", "LostJobs", "Reconciler", "retry"]
