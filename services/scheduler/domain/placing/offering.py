"""An offer of one node of a gang."""

from __future__ import annotations

from collections.abc import Iterable

from services.scheduler.domain.facts import Fact, to_agent
from services.scheduler.domain.placing.growing import is_lent
from services.scheduler.domain.state import Agent, Pool, Run
from trainyard import _gang
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.cluster.v1.resources_pb2 import Resources


def offer(
    run: Run, pool: Pool, agent: Agent, given: Resources, gpus: Iterable[int], *, epoch: int, index: int, nodes: int, joins: bool = False
) -> Fact:
    """`joins`: into a gang that runs, as the last of its nodes, whatever its index; its ranks are told with the next shape."""
    distribution = run.spec.distribution
    told = cluster.LeaseOffered(
        run_id=run.id,
        epoch=epoch,
        agent_id=agent.id,
        incarnation=agent.incarnation,
        node_index=index,
        ranks=_gang.ranks_of(distribution, nodes - 1 if joins else index, nodes),
        world_size=len(_gang.tasks(distribution, nodes)),
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
