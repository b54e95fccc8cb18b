"""The scheduler's own decisions on a virtual clock, with virtual nodes: what a workload would be under a policy, without waiting for it."""

from services.scheduler.simulation.ledger import Figures, Ledger
from services.scheduler.simulation.plans import Attempt, Submission, Workload
from services.scheduler.simulation.yard import Yard

__all__ = ["Attempt", "Figures", "Ledger", "Submission", "Workload", "Yard"]
