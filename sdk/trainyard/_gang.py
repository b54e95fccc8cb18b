"""Which processes a distributed run has: one numbering of ranks, shared by the SDK, the scheduler and the agents. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

CHIEF, WORKER, PARAMETER_SERVER, EVALUATOR = "chief", "worker", "ps", "evaluator"


@dataclass(frozen=True)
class Task:
    """One process of a run. `kind` is empty where ranks are all alike."""

    rank: int
    node: int
    """Position of its node in the gang."""
    kind: str = ""
    index: int = 0
    """Counts the tasks of its kind from 0."""
    ends_by_itself: bool = field(default=True, compare=False)
    """False for who serves others until it is ended, which is its success: a parameter server, and beside such a worker that has a chief,
    since tf.distribute's workers then only do what the chief hands them."""


def node_count(distribution: Any) -> int:
    """Nodes that a run begins with."""
    return distribution.node_count or 1


def fewest_nodes(distribution: Any) -> int:
    """Nodes that it goes on with; fewer than `node_count` for an elastic run alone."""
    return (is_elastic(distribution) and distribution.horovod.min_nodes) or node_count(distribution)


def most_nodes(distribution: Any) -> int:
    """Nodes that it grows to; more than `node_count` for an elastic run alone."""
    return max(node_count(distribution), distribution.horovod.max_nodes if is_elastic(distribution) else 0)


def is_elastic(distribution: Any) -> bool:
    horovod = distribution.horovod
    return distribution.WhichOneof("kind") == "horovod" and bool(horovod.min_nodes or horovod.max_nodes)


def tasks(distribution: Any, nodes: int = 0) -> list[Task]:
    """By rank. `nodes`: of an elastic gang's present shape; 0 = as it begins.

    Ranks of a ring lie node by node, as MPI deals them by slot; tasks of a TensorFlow cluster are dealt to the nodes in turn,
    but for the evaluator: it reads the checkpoints of the chief, or else of the first worker, which lie on that one's node.
    """
    nodes = nodes or node_count(distribution)
    if distribution.WhichOneof("kind") != "tensorflow":
        each = distribution.process_count_per_node or 1
        return [Task(rank, rank // each) for rank in range(nodes * each)]
    cluster = distribution.tensorflow
    kinds = [(kind, index) for kind, count in _kinds(cluster) for index in range(count)]
    serve = {PARAMETER_SERVER, *([WORKER] if cluster.chief and cluster.parameter_server_count else [])}
    return [
        Task(rank, 0 if kind == EVALUATOR else rank % nodes, kind, index, kind not in serve) for rank, (kind, index) in enumerate(kinds)
    ]


def _kinds(cluster: Any) -> tuple[tuple[str, int], ...]:
    """Kinds of tasks in the order of their ranks, with how many there are of each."""
    workers, servers = (WORKER, cluster.worker_count), (PARAMETER_SERVER, cluster.parameter_server_count)
    return (CHIEF, int(cluster.chief)), workers, servers, (EVALUATOR, int(cluster.evaluator))


def ranks_of(distribution: Any, node: int, nodes: int = 0) -> list[int]:
    """The ranks that one node starts."""
    return [task.rank for task in tasks(distribution, nodes) if task.node == node]


def log_suffix(task: Task, alone: bool) -> str:
    """What sets the log of one process apart from the others': "" of a run that has one alone, "_3", "_worker_0", "_ps_0"."""
    if task.kind:
        return f"_{task.kind}_{task.index}"
    return "" if alone else f"_{task.rank}"


def driver_log(distribution: Any, rank: int) -> str:
    """The log that holds a rank's output; of an elastic run that of the process which began with that rank.

    By counting alone: a forged specification may ask for more tasks than any memory holds.
    """
    task, alone = Task(rank, 0), False
    if distribution.WhichOneof("kind") == "tensorflow":
        index = rank
        for kind, count in _kinds(distribution.tensorflow):
            if 0 <= index < count:
                task = Task(rank, 0, kind, index)
                break
            index -= count
    else:
        several = is_elastic(distribution) or node_count(distribution) * (distribution.process_count_per_node or 1) > 1
        alone = rank == 0 and not several
    return f"azureml-logs/70_driver_log{log_suffix(task, alone)}.txt"
