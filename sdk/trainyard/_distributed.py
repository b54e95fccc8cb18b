"""How a run is spread over processes: Azure's configurations of both eras."""

from __future__ import annotations

from typing import Any

from trainyard._errors import TrainingException


class MpiConfiguration:
    """Horovod and other users of MPI: `process_count_per_node` ranks on each of `node_count` nodes."""

    def __init__(self, process_count_per_node: int = 1, node_count: int = 1) -> None:
        self.process_count_per_node = process_count_per_node
        self.node_count = node_count


class TensorflowConfiguration:
    """TensorFlow's own distribution: workers and parameter servers, told to each other by TF_CONFIG."""

    def __init__(self, worker_count: int = 1, parameter_server_count: int = 1) -> None:
        self.worker_count = worker_count
        self.parameter_server_count = parameter_server_count


class Mpi(MpiConfiguration):
    """The estimators' name for it."""

    def __init__(self, process_count_per_node: int = 1) -> None:
        super().__init__(process_count_per_node)


class ParameterServer(TensorflowConfiguration):
    """The estimators' name for it."""


def require_one_process(job: Any, node_count: int) -> None:
    """Raises TrainingException for a configuration that needs more than one process, and for what is no configuration."""
    if job is None:
        job = MpiConfiguration()
    match job:
        case MpiConfiguration():
            counts = {"node_count": max(node_count, job.node_count), "process_count_per_node": job.process_count_per_node}
        case TensorflowConfiguration():
            counts = {"worker_count": job.worker_count, "parameter_server_count": job.parameter_server_count, "node_count": node_count}
        case _:
            raise TrainingException(
                f"{type(job).__name__} is no configuration of a distributed run.",
                target="distributed_training",
                hint="use MpiConfiguration or TensorflowConfiguration",
            )
    for name, count in counts.items():
        if not isinstance(count, int) or isinstance(count, bool) or count < (0 if name == "parameter_server_count" else 1):
            raise TrainingException(f"{name} must be a whole number from 1; it is {count!r}.", target=name)
    processes = [count for name, count in counts.items() if name != "parameter_server_count"]
    if max(processes) > 1 or isinstance(job, TensorflowConfiguration):
        told = ", ".join(f"{name}={count}" for name, count in counts.items())
        raise TrainingException(
            f"A run of several processes ({type(job).__name__}: {told}) cannot be scheduled by this version of the platform.",
            target="distributed_training",
            hint="run one process on one node: leave the distributed configuration out",
        )
