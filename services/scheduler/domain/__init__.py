"""Runs, pools and agents as pure functions: `decide` says what follows from an input, `evolve` folds any event.

The scheduler's whole state is a fold of events; nothing here reads a clock, makes an id or touches the world.
"""

from services.scheduler.domain import policy
from services.scheduler.domain.decide import ANSWERED, LABELS, decide
from services.scheduler.domain.evolve import evolve, fold
from services.scheduler.domain.facts import Fact
from services.scheduler.domain.holding import Holding, Unheld
from services.scheduler.domain.pulses import Tick
from services.scheduler.domain.state import Agent, Member, Pool, Run, State, World

__all__ = [
    "ANSWERED",
    "LABELS",
    "Agent",
    "Fact",
    "Holding",
    "Member",
    "Pool",
    "Run",
    "State",
    "Tick",
    "Unheld",
    "World",
    "decide",
    "evolve",
    "fold",
    "policy",
]
