"""Making and removing pools of nodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from services.scheduler.domain import shapes, validate
from services.scheduler.domain.facts import Fact, about_pool
from services.scheduler.domain.failures import failure
from services.scheduler.domain.state import Pool, State, World
from services.scheduler.domain.times import seconds
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.event.v1.artifact_pb2 import Failure

_IDLE_SECONDS = 120
_MAX_NODES = 10_000


def create(state: State, request: Any, world: World) -> Iterator[Fact]:
    known = state.pools.get(request.name)
    if known is not None:
        if known.submission_id != request.submission_id and not _same(known, request):
            what = f"A compute target {request.name!r} exists with another definition ({known.vm_size}, {known.min_nodes} to {known.max_nodes} nodes)."
            yield _rejected(request, failure("AlreadyExists", what, request.name))
        return
    wrong = _wrong(request)
    size = shapes.capped(request.vm_size, world.machine)
    if wrong is not None or size is None:
        what = f"vm_size {request.vm_size[:100]!r} is not known; known are: {', '.join(shapes.names())}."
        yield _rejected(request, wrong or failure("UserError", what, "vm_size"))
        return
    shape, note = size
    created = cluster.PoolCreated(
        submission_id=request.submission_id,
        name=request.name,
        vm_size=request.vm_size,
        vm_priority=request.vm_priority or "dedicated",
        min_nodes=request.min_nodes,
        max_nodes=request.max_nodes,
        idle_before_scaledown=_idle(request),
        shape=shape,
        note=note,
    )
    created.created_at.CopyFrom(_stamp(world))
    yield about_pool(created)


def delete(state: State, request: Any) -> Iterator[Fact]:
    """Nothing where it is in use or not there: the caller looks at what is."""
    if request.name in state.pools and not users(state, request.name):
        yield about_pool(cluster.PoolDeleted(name=request.name))


def users(state: State, name: str) -> list[str]:
    """Ids of the runs that have not ended and are meant for the pool."""
    return sorted(run.id for run in state.live_runs() if run.spec.compute_target == name)


def _wrong(request: Any) -> Failure | None:
    if not validate.POOL.match(request.name):
        return failure(
            "UserError",
            f"{request.name[:100]!r} is no name of a compute target: a letter, then letters, digits and -, 2 to 32 in all.",
            "name",
        )
    if request.vm_priority not in ("", "dedicated", "lowpriority"):
        return failure("UserError", f"vm_priority {request.vm_priority[:100]!r} is none of: dedicated, lowpriority.", "vm_priority")
    if not 1 <= request.max_nodes <= _MAX_NODES or request.min_nodes > request.max_nodes:
        return failure(
            "UserError",
            f"0 <= min_nodes <= max_nodes and 1 <= max_nodes <= {_MAX_NODES} must hold; they are {request.min_nodes} and {request.max_nodes}.",
            "max_nodes",
        )
    if not 0 <= seconds(_idle(request)) <= validate.LONGEST_SECONDS:
        what = f"idle_before_scaledown must not be negative and at most {validate.LONGEST_SECONDS} s."
        return failure("UserError", what, "idle_before_scaledown")
    return None


def _same(pool: Pool, request: Any) -> bool:
    asked = (
        request.vm_size,
        request.vm_priority or "dedicated",
        request.min_nodes,
        request.max_nodes,
        seconds(_idle(request)),
    )
    return asked == (pool.vm_size, pool.vm_priority, pool.min_nodes, pool.max_nodes, pool.idle_seconds)


def _idle(request: Any) -> Duration:
    return request.idle_before_scaledown if request.HasField("idle_before_scaledown") else Duration(seconds=_IDLE_SECONDS)


def _rejected(request: Any, why: Failure) -> Fact:
    return about_pool(cluster.PoolRejected(submission_id=request.submission_id, name=request.name, failure=why))


def _stamp(world: World) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(world.now)
    return stamp
