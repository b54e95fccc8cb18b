"""A gang as its nodes and ranks see it: who is where, and the variables that say so. Pure.

Names: TF_CONFIG is TensorFlow's, OMPI_* and PMI_* are what MPI's launchers set, the others what Azure ML's users' scripts read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from trainyard._gang import EVALUATOR, PARAMETER_SERVER, Task, is_elastic, log_suffix, tasks

_DRIVER_LOG = "azureml-logs/70_driver_log{}.txt"


def is_horovod(spec: Any) -> bool:
    return bool(spec.distribution.WhichOneof("kind") == "horovod")


def ports_wanted(offer: Any) -> int:
    """One a rank, and on a node of a Horovod run that serves the rendezvous one more."""
    return len(offer.ranks) + int(serves_rendezvous(offer))


def serves_rendezvous(offer: Any) -> bool:
    return is_horovod(offer.spec) and offer.node_index == 0


def tasks_here(offer: Any, ranks: Sequence[int], nodes: int) -> list[Task]:
    """What this node starts, by rank, in a gang of so many nodes."""
    return [task for task in tasks(offer.spec.distribution, nodes) if task.rank in ranks]


def log_number(offer: Any, local_rank: int, task: Task) -> int:
    """The number by which a rank's log is known. It stays, where an elastic gang numbers its ranks anew: no two logs of an attempt share it."""
    distribution = offer.spec.distribution
    if not is_elastic(distribution):
        return task.rank
    return int(offer.node_index * (distribution.process_count_per_node or 1) + local_rank)


def log_name(offer: Any, number: int, task: Task) -> str:
    distribution = offer.spec.distribution
    alone = len(tasks(distribution)) == 1 and not is_elastic(distribution)
    return _DRIVER_LOG.format(log_suffix(Task(number, task.node, task.kind, task.index), alone))


def addresses(gang: Any) -> dict[int, str]:
    """host:port of each rank."""
    return {
        rank: f"[{member.address}]:{port}" if ":" in member.address else f"{member.address}:{port}"
        for member in gang.members
        for rank, port in zip(member.ranks, member.ports, strict=False)
    }


def variables(offer: Any, gang: Any, task: Task, here: Sequence[Task]) -> dict[str, str]:
    """Of one rank; `here` are the ranks of its node. Nobody may set these otherwise: a rank that is wrong about its gang breaks the others."""
    distribution = offer.spec.distribution
    given = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(map(str, devices(offer.gpus, here)[task.rank]))}
    if not offer.spec.HasField("distribution"):
        return given
    given["AZUREML_NODE_COUNT"] = str(len(gang.members))
    if distribution.WhichOneof("kind") == "tensorflow":
        return given | {
            "TF_CONFIG": tf_config(distribution, gang, task),
            "AZ_BATCHAI_TASK_TYPE": task.kind,
            "AZ_BATCHAI_TASK_INDEX": str(task.index),
            "AZUREML_COMMUNICATOR": "ParameterServer",
        }
    return given | _mpi(gang, task, here) | {"AZUREML_COMMUNICATOR": "IntelMpi"}


def tf_config(distribution: Any, gang: Any, task: Task) -> str:
    """An evaluator is in nobody's cluster, and has its task all the same."""
    known = addresses(gang)
    cluster: dict[str, list[str]] = {}
    for other in tasks(distribution, len(gang.members)):
        if other.kind != EVALUATOR:
            cluster.setdefault(other.kind, []).append(known[other.rank])
    return json.dumps({"cluster": cluster, "task": {"type": task.kind, "index": task.index}, "environment": "cloud"})


def _mpi(gang: Any, task: Task, here: Sequence[Task]) -> dict[str, str]:
    size, local = sum(len(it.ranks) for it in gang.members), [it.rank for it in here].index(task.rank)
    numbers = {
        "OMPI_COMM_WORLD_RANK": task.rank,
        "OMPI_COMM_WORLD_SIZE": size,
        "OMPI_COMM_WORLD_LOCAL_RANK": local,
        "OMPI_COMM_WORLD_LOCAL_SIZE": len(here),
        "OMPI_COMM_WORLD_NODE_RANK": local,
        "OMPI_UNIVERSE_SIZE": size,
        "PMI_RANK": task.rank,
        "PMI_SIZE": size,
        "MPI_LOCALRANKID": local,
        "MPI_LOCALNRANKS": len(here),
        "AZ_BATCHAI_TASK_INDEX": task.rank,
    }
    return {name: str(number) for name, number in numbers.items()} | {"AZ_BATCHAI_TASK_TYPE": "worker"}


def devices(gpus: Sequence[int], here: Sequence[Task]) -> dict[int, Sequence[int]]:
    """Rank -> the node's devices that it sees.

    Each has its own, and of more devices than ranks a slice; of fewer they are shared in turn. A parameter server has none: it computes
    nothing, and TensorFlow would take the whole memory of a device. An evaluator has one where one is left.
    """
    takers = [task for task in here if task.kind != PARAMETER_SERVER]
    if len(gpus) < len(takers):
        takers = [task for task in takers if task.kind != EVALUATOR] or takers
    dealt: dict[int, Sequence[int]] = {task.rank: () for task in here}
    if not gpus or not takers:
        return dealt
    each, more = divmod(len(gpus), len(takers))
    first = 0
    for position, task in enumerate(takers):
        count = each + int(position < more)
        dealt[task.rank] = gpus[first : first + count] if each else [gpus[position % len(gpus)]]
        first += count
    return dealt


def threads(spec: Any, here: int) -> Mapping[str, str]:
    """Where a run takes some of a node's cores, its ranks share them. What the script's environment says goes before it."""
    if not spec.resources.cpus:
        return {}
    each = str(max(1, math.floor(spec.resources.cpus / max(1, here))))
    return {"OMP_NUM_THREADS": each, "TF_NUM_INTRAOP_THREADS": each, "TF_NUM_INTEROP_THREADS": each}
