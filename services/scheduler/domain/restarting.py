"""Attempts begun again after the script had failed."""

from __future__ import annotations

from services.scheduler.domain.state import Run
from trainyard.event.v1.artifact_pb2 import Failure

SCRIPT_FAILED, SCRIPT_KILLED = "ScriptFailed", "ScriptKilled"
# Losing ranks is an elastic run's daily life.
_ELASTIC_RESTARTS = 10


def allowed(run: Run) -> int:
    """How often, in all."""
    return int(run.spec.max_restarts or (_ELASTIC_RESTARTS if run.is_elastic else 0))


def may_restart(run: Run, why: Failure) -> bool:
    """A time limit, an environment that cannot be built or outputs that are lost would only come again."""
    return why.code in (SCRIPT_FAILED, SCRIPT_KILLED) and run.restarts < allowed(run)
