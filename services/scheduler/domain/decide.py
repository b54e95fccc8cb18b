"""What follows from an input. Never raises for bad input: it answers with a fact that says why not, or with nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from google.protobuf.message import Message

from services.scheduler.domain import attempts, fencing, joined, labels, losing, opened, policy, pools, requests
from services.scheduler.domain.evolve import evolve, fold
from services.scheduler.domain.facts import Fact
from services.scheduler.domain.holding import Unheld
from services.scheduler.domain.placing import may_place, place, shrink
from services.scheduler.domain.providers import LOCAL, kind_of
from services.scheduler.domain.pulses import Tick, tick
from services.scheduler.domain.state import State, World
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.job.v1 import job_pb2 as job

Input = Message | Tick | Unheld
LABELS = (job.TagRun, job.AddRunProperties, job.AddRunFiles)
_OF_POOLS = (cluster.CreatePool, cluster.UpdatePool, cluster.DeletePool, cluster.DrainAgent, cluster.SetPolicy)
REQUESTS = (job.SubmitRun, job.CancelRun, job.OpenRun, job.CloseRun, *LABELS, *_OF_POOLS)

ANSWERED = (*REQUESTS, *attempts.REPORTS, cluster.AgentRegistered, cluster.AgentDrained, cluster.LeaseDeclined)
"""Inputs that may lead to facts."""


def decide(state: State, message: Input, world: World, after: State | None = None) -> list[Fact]:
    """The direct answer, what it means for children, and the placements that have become possible by it. `after`: the state after the
    message, from whoever has worked it out already."""
    if isinstance(message, cluster.LeaseDeclined):
        # Asked again at once it would decline again at once.
        world = replace(world, declined_agents=world.declined_agents | {message.agent_id})
    begun = state
    if isinstance(message, Unheld):
        answer = list(losing.unheld(state, message, world))
    elif isinstance(message, Tick):
        answer = [*tick(state, message, world), *joined.leave(state, world), *pools.fail_waiting(state, world), *shrink(state, world)]
    else:
        after = evolve(state, message, world.now) if after is None else after
        answer = list(_answer(state, after, message, world))
        state = after
    state = fold(state, answer, world.now)
    ends = list(opened.end_children(state, answer, lambda it, request: requests.cancel(it, request, world), world))
    state = fold(state, ends, world.now)
    looks = isinstance(message, Tick | cluster.LeaseDeclined) or may_place(begun, state)
    return answer + ends + (_place(state, world) if looks else [])


def _place(state: State, world: World) -> list[Fact]:
    """Looks once more where the first look may have made room for somebody whom it had passed by already: a node that came over from
    another pool for a later run, or one that its own pool needs no more since its queue got what it waited for."""
    placed = place(state, world)
    said = {type(fact.message) for fact in placed}
    if cluster.PoolResized in said or (cluster.LeaseOffered in said and _several_share_this_machine(state)):
        placed += place(fold(state, placed, world.now), world)
    return placed


def _several_share_this_machine(state: State) -> bool:
    """Pools that somebody waits for."""
    return sum(name in state.pools and kind_of(state.pools[name].provider) == LOCAL for name in state.index.waiting) > 1


def _answer(before: State, state: State, message: Any, world: World) -> Iterable[Fact]:
    match message:
        case job.SubmitRun():
            return requests.submit(state, message, world)
        case job.CancelRun():
            return requests.cancel(state, message, world)
        case job.OpenRun():
            return opened.open_run(state, message, world)
        case job.CloseRun():
            return opened.close(state, message, world)
        case job.TagRun() | job.AddRunProperties() | job.AddRunFiles():
            return _labelled(state, message)
        case cluster.CreatePool():
            return pools.create(state, message, world)
        case cluster.UpdatePool():
            return pools.update(state, message)
        case cluster.DeletePool():
            return pools.delete(state, message)
        case cluster.DrainAgent():
            return pools.drain(state, message)
        case cluster.SetPolicy():
            return policy.change(state, message)
        case cluster.AgentRegistered():
            return [*losing.registered(before, state, message, world), *joined.on_registered(state, message)]
        case cluster.AgentDrained():
            return [*losing.drained(state, message, world), *joined.on_drained(state, message)]
        case cluster.LeaseDeclined():
            return losing.declined(state, message, world)
        case _ if isinstance(message, attempts.REPORTS):
            return attempts.reported(before.runs.get(message.run_id), state.runs.get(message.run_id), message, world)
    return ()


def _labelled(state: State, request: Any) -> Iterable[Fact]:
    run = state.runs.get(request.run_id)
    return () if run is None or run.status == job.RUN_STATUS_REJECTED else labels.answer(run, request, fencing.refusal(state, request))
