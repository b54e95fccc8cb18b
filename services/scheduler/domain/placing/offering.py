"""An offer of one node of a gang."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from services.scheduler.domain.facts import Fact, to_agent
from services.scheduler.domain.placing.growing import is_lent
from services.scheduler.domain.state import Agent, Pool, Run
from trainyard import _gang
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.cluster.v1.resources_pb2 import Resources
from trainyard.job.v1.spec_pb2 import Distribution


def offer(
    run: Run, pool: Pool, agent: Agent, given: Resources, gpus: Iterable[int], *, epoch: int, index: int, nodes: int, joins: bool = False
) -> Fact:
    """`joins`: into a gang that runs, as the last of its nodes, whatever its index; its ranks are told with the next shape."""
    ranks = _dealt(run.spec.distribution.SerializeToString(deterministic=True), nodes)
    told = cluster.LeaseOffered(
        run_id=run.id,
        epoch=epoch,
        agent_id=agent.id,
        incarnation=agent.incarnation,
        node_index=index,
        ranks=ranks[nodes - 1 if joins else index],
        world_size=sum(map(len, ranks)),
        experiment=run.experiment,
        spec=run.spec,
        tags=run.tags,
        properties=run.properties,
        resources=given,
        gpus=gpus,
        node_count=nodes,
        checkpoint=run.checkpoint,
        preemptible=is_lent(pool),
    )
    return to_agent(agent.id, told)


@lru_cache(maxsize=256)
def _dealt(distribution: bytes, nodes: int) -> list[list[int]]:
    """The ranks of each node. Worked out for a gang at once: for each of its nodes anew it would cost the square of their number."""
    ranks: list[list[int]] = [[] for _ in range(nodes)]
    for task in _gang.tasks(Distribution.FromString(distribution), nodes):
        ranks[task.node].append(task.rank)
    return ranks
