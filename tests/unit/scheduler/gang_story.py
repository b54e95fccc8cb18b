"""Sentences for tests of gangs. Nodes are given by hand, whatever placement would do: the agents are of no pool."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

from google.protobuf.message import Message

from services.scheduler.domain import Member, Tick, Unheld, evolve
from tests.unit.scheduler.story import START, Story, a_submission, some_outputs
from trainyard import _gang
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.event.v1.artifact_pb2 import Artifact, ArtifactSet
from trainyard.job.v1 import job_pb2 as job
from trainyard.job.v1 import spec_pb2 as spec


def horovod(nodes: int = 2, each: int = 1, **elastic: int) -> Any:
    return spec.Distribution(node_count=nodes, process_count_per_node=each, horovod=spec.Horovod(**elastic))


def a_cluster(nodes: int = 2, **counts: Any) -> Any:
    return spec.Distribution(node_count=nodes, tensorflow=spec.TensorflowCluster(**counts))


class GangStory(Story):
    """The run is "run", its nodes are node-0, node-1 and so on, whose processes are "first" until they begin anew."""

    def __init__(self, distribution: Any = None, **options: Any) -> None:
        super().__init__(**options.pop("world", {}), node_slots=8)
        self.with_pool(max_nodes=1000)
        self.incarnations: dict[str, str] = {}
        self.tell(a_submission(distribution=horovod() if distribution is None else distribution, **options))
        for number in range(_gang.node_count(self.run().spec.distribution)):
            self.node(number)

    def tell(self, *messages: Message | Tick | Unheld) -> list[Any]:
        """What followed, but for how the pool grows."""
        return [it for it in super().tell(*messages) if not isinstance(it, job.RunScaling | cluster.PoolResized)]

    # -- nodes

    def node(self, number: int, incarnation: str = "first") -> list[Any]:
        self.incarnations[f"node-{number}"] = incarnation
        return self.tell(cluster.AgentRegistered(agent_id=f"node-{number}", incarnation=incarnation, address=f"10.0.0.{number}"))

    def offered(self, nodes: Iterable[int] | None = None) -> GangStory:
        """A new attempt on these nodes; node-0 and so on by default."""
        distribution, epoch = self.run().spec.distribution, self.run().epoch + 1
        for index, number in enumerate(range(_gang.node_count(distribution)) if nodes is None else nodes):
            self._offer(number, index, _gang.ranks_of(distribution, index), epoch)
        return self

    def joins(self, number: int) -> GangStory:
        """One more node for the attempt that goes on."""
        run = self.run()
        each = run.spec.distribution.process_count_per_node or 1
        ranks = [run.next_index * each + local for local in range(each)]
        self._offer(number, run.next_index, ranks, run.epoch)
        return self

    def _offer(self, number: int, index: int, ranks: list[int], epoch: int) -> None:
        name = f"node-{number}"
        offer = cluster.LeaseOffered(
            run_id="run", epoch=epoch, agent_id=name, incarnation=self.incarnations[name], node_index=index, ranks=ranks
        )
        self.state = evolve(self.state, offer, self.world.now)

    # -- scenes

    def accepted(self) -> GangStory:
        self.offered().each(cluster.LeaseAccepted)
        return self

    def running(self) -> GangStory:
        if not self.run().members:
            self.accepted()
        self.each(cluster.TaskPrepared)
        for member in self.members():
            for rank in member.ranks:
                self.says(member.agent_id, cluster.TaskStarted(rank=rank))
        return self

    # -- reports

    def members(self) -> list[Member]:
        return sorted(self.run().members, key=lambda it: it.node_index)

    def each(self, make: Callable[[], Any]) -> list[Any]:
        """Every member says it."""
        return [fact for member in self.members() for fact in self.says(member.agent_id, make())]

    def says(self, node: int | str, message: Any, epoch: int | None = None, incarnation: str = "") -> list[Any]:
        name = node if isinstance(node, str) else f"node-{node}"
        return self.report(message, epoch=epoch, agent_id=name, incarnation=incarnation or self.incarnations[name])

    def exits(self, rank: int, code: int = 0, after: float = 0, *, stopped: bool = False, words: str = "boom") -> list[Any]:
        """`after`: seconds since the beginning, by the clock of the rank's node."""
        owner = next(it for it in self.run().members if rank in it.ranks and it.failure is None and rank not in it.exited)
        ended = cluster.TaskExited(rank=rank, exit_code=code, last_lines=[words] if code else [], stopped=stopped)
        ended.exited_at.FromDatetime(START + timedelta(seconds=after))
        return self.says(owner.agent_id, ended)

    def uploads(self, *paths: str) -> list[Any]:
        """Every member that has not yet."""
        waiting = [it for it in self.members() if not it.uploaded]
        return [fact for member in waiting for fact in self.says(member.agent_id, some_outputs(*paths))]

    def saves(self, node: int, number: int, *paths: str, epoch: int | None = None, incarnation: str = "") -> list[Any]:
        told = cluster.CheckpointSaved(number=number, checkpoint=files(*paths))
        return self.says(node, told, epoch, incarnation)


def files(*paths: str, digest: str = "a", folder: str = "runs/run/1/checkpoints/blobs") -> ArtifactSet:
    return ArtifactSet(files=[Artifact(path=path, size_bytes=1, sha256=digest * 64, object_key=f"{folder}/{path}") for path in paths])


def uploaded(*paths: str, digest: str = "a") -> Any:
    return cluster.OutputsUploaded(outputs=files(*paths, digest=digest, folder="runs/run/1"))


def left_as_given(told: Any, *paths: str) -> Any:
    """The report with these files of the checkpoint, which the node's ranks have not touched."""
    told.restored.CopyFrom(files(*paths, digest="0", folder="runs/run/2"))
    return told


def of(told: list[Any], kind: type[Any]) -> list[Any]:
    return [message for message in told if isinstance(message, kind)]
