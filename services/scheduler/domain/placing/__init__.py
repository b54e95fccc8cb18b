"""Which waiting run gets which nodes, how pools grow and shrink for that, and why the others wait."""

from services.scheduler.domain.placing.growing import shrink
from services.scheduler.domain.placing.plan import may_place, place
from services.scheduler.domain.placing.standing import can_never_fit, explain, line, standing

__all__ = ["can_never_fit", "explain", "line", "may_place", "place", "shrink", "standing"]
