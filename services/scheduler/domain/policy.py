"""How the queue is ordered: asked for, judged, in force."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from services.scheduler.domain import validate
from services.scheduler.domain.facts import Fact, about_policy, about_pool
from services.scheduler.domain.failures import failure
from services.scheduler.domain.state import State
from services.scheduler.domain.times import seconds
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.event.v1.artifact_pb2 import Failure

NAME = "policy"
_MOST = 1_000


def change(state: State, request: Any) -> Iterator[Fact]:
    wrong = _wrong(request.policy)
    if wrong is not None:
        yield about_pool(cluster.PoolRejected(submission_id=request.submission_id, name=NAME, failure=wrong))
    elif request.policy != state.policy:
        yield about_policy(cluster.PolicyChanged(submission_id=request.submission_id, policy=request.policy))


def evolve(state: State, message: Any) -> State:
    return replace(state, policy=message.policy)


def _wrong(policy: Any) -> Failure | None:
    for field in ("weights", "quotas"):
        if len(getattr(policy, field)) > _MOST:
            return failure("UserError", f"{field} has {len(getattr(policy, field))} entries; at most {_MOST} are taken.", field)
    for name, weight in policy.weights.items():
        if not (math.isfinite(weight) and weight > 0):
            return failure("UserError", f"The weight of {name[:100]!r} is {weight:g}; it must be more than 0.", "weights")
    if policy.HasField("aging") and not 0 < seconds(policy.aging) <= validate.LONGEST_SECONDS:
        return failure("UserError", f"aging must be more than zero and at most {validate.LONGEST_SECONDS} s.", "aging")
    return None
