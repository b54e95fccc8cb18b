"""How a run is spread over processes: Azure's configurations of both eras, and what they mean together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trainyard._errors import TrainingException

if TYPE_CHECKING:
    from trainyard.job.v1.spec_pb2 import Distribution

# What says nothing: another place may tell.
_UNSAID: dict[str, Any] = {
    "node_count": 1,
    "process_count_per_node": 1,
    "worker_count": 1,
    "parameter_server_count": 1,
    "min_nodes": None,
    "max_nodes": None,
    "chief": False,
    "evaluator": False,
}
_OF_MPI = ("min_nodes", "max_nodes")
_OF_TENSORFLOW = ("worker_count", "parameter_server_count", "chief", "evaluator")
# Least and most, as spec.proto has them; of tasks what the largest gang has room for.
_BOUNDS = {
    "node_count": (1, 1_000),
    "process_count_per_node": (1, 64),
    "worker_count": (0, 64_000),
    "parameter_server_count": (0, 64_000),
    "min_nodes": (1, 1_000),
    "max_nodes": (1, 1_000),
}


class MpiConfiguration:
    """Horovod and other users of MPI: `process_count_per_node` ranks on each of `node_count` nodes, one ring.

    min_nodes, max_nodes make it elastic: a script with `hvd.elastic.run` goes on with as few nodes and grows to as many.
    """

    # A misspelt attribute must not be taken in silence.
    __slots__ = ("max_nodes", "min_nodes", "node_count", "process_count_per_node")

    def __init__(
        self, process_count_per_node: int = 1, node_count: int = 1, *, min_nodes: int | None = None, max_nodes: int | None = None
    ) -> None:
        self.process_count_per_node = process_count_per_node
        self.node_count = node_count
        self.min_nodes = min_nodes
        self.max_nodes = max_nodes


class TensorflowConfiguration:
    """TensorFlow's own distribution: workers and parameter servers, told to each other by TF_CONFIG.

    chief: one task of type "chief" beside the workers, as tf.estimator and ParameterServerStrategy want it. evaluator: one of type
    "evaluator". parameter_server_count=0 is MultiWorkerMirroredStrategy's cluster. The tasks are dealt to the run's nodes in turn.
    """

    __slots__ = ("chief", "evaluator", "parameter_server_count", "worker_count")

    def __init__(self, worker_count: int = 1, parameter_server_count: int = 1, *, chief: bool = False, evaluator: bool = False) -> None:
        self.worker_count = worker_count
        self.parameter_server_count = parameter_server_count
        self.chief = chief
        self.evaluator = evaluator


class Mpi(MpiConfiguration):
    """The estimators' name for MpiConfiguration; their node_count counts the nodes."""

    __slots__ = ()

    def __init__(self, process_count_per_node: int = 1, *, min_nodes: int | None = None, max_nodes: int | None = None) -> None:
        super().__init__(process_count_per_node, min_nodes=min_nodes, max_nodes=max_nodes)


class ParameterServer(TensorflowConfiguration):
    """The estimators' name for TensorflowConfiguration."""

    __slots__ = ()


def is_unset(job: Any) -> bool:
    """Whether it says no more than a new one does."""
    return all(getattr(job, name, unsaid) == unsaid for name, unsaid in _UNSAID.items())


def distribution(jobs: Sequence[Any], beside: Mapping[str, Any]) -> Distribution | None:
    """What all configurations and the options beside them mean together; None: one process.

    A count of 1 says nothing where another place says more. Raises TrainingException where two say different things, where the counts
    do not fit each other, and where several processes are asked for but not how they work together.
    """
    given = [job for job in jobs if job is not None]
    for job in given:
        if not isinstance(job, MpiConfiguration | TensorflowConfiguration):
            told = job.__name__ if isinstance(job, type) else repr(job)[:200]
            raise TrainingException(
                f"{told} is no configuration of a distributed run.",
                target="distributed_training",
                hint="use MpiConfiguration() or TensorflowConfiguration()",
            )
    told_counts = [{name: getattr(job, name, unsaid) for name, unsaid in _UNSAID.items()} for job in given] + [beside]
    counts = {name: _agreed(name, [it.get(name, unsaid) for it in told_counts]) for name, unsaid in _UNSAID.items()}
    mpi, tensorflow = (any(isinstance(job, kind) for job in given) for kind in (MpiConfiguration, TensorflowConfiguration))
    if mpi and tensorflow:
        raise TrainingException("The run is to be distributed by MPI and by TensorFlow at once.", target="distributed_training")
    if not given:
        _refuse_copies(counts)
        return None
    _refuse_strangers(counts, _OF_TENSORFLOW if mpi else _OF_MPI, "MPI" if mpi else "TensorFlow")
    return _ring(counts) if mpi else _cluster(counts)


def _agreed(name: str, values: Sequence[Any]) -> Any:
    unsaid = _UNSAID[name]
    for value in values:
        if isinstance(unsaid, bool):
            if not isinstance(value, bool):
                raise TrainingException(f"{name} is True or False, not {value!r}.", target=name)
        elif value is not None or unsaid is not None:
            least, most = _BOUNDS[name]
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
                raise TrainingException(f"{name} must be a whole number from {least} to {most}; it is {value!r}.", target=name)
    said = sorted({value for value in values if value != unsaid})
    if len(said) > 1:
        raise TrainingException(
            f"{name} is given in two places that differ: {' and '.join(map(str, said))}.", target=name, hint="give it once"
        )
    return said[0] if said else unsaid


def _refuse_copies(counts: Mapping[str, Any]) -> None:
    """Azure's MPI did the same work n times for those who forgot to say how; the time is better spent on asking."""
    several = {name: count for name, count in counts.items() if count != _UNSAID[name]}
    if several:
        told = ", ".join(f"{name}={count}" for name, count in several.items())
        raise TrainingException(
            f"{told} asks for several processes, but not how they work together: each would do the same work.",
            target=next(iter(several)),
            hint="give distributed_training=MpiConfiguration() for Horovod, or TensorflowConfiguration() for TF_CONFIG "
            "(ScriptRunConfig: distributed_job_config)",
        )


def _refuse_strangers(counts: Mapping[str, Any], names: Sequence[str], kind: str) -> None:
    for name in names:
        if counts[name] != _UNSAID[name]:
            raise TrainingException(f"{name}={counts[name]} has no meaning for a run that is distributed by {kind}.", target=name)


def _ring(counts: Mapping[str, Any]) -> Distribution:
    from trainyard.job.v1 import spec_pb2

    nodes, fewest, most = (counts[name] for name in ("node_count", "min_nodes", "max_nodes"))
    if (fewest is not None and fewest > nodes) or (most is not None and most < nodes):
        raise TrainingException(
            f"node_count={nodes} does not lie between min_nodes={fewest} and max_nodes={most}.",
            target="min_nodes" if fewest is not None and fewest > nodes else "max_nodes",
            hint="node_count is how many nodes an elastic run begins with",
        )
    return spec_pb2.Distribution(
        node_count=nodes,
        process_count_per_node=counts["process_count_per_node"],
        horovod=spec_pb2.Horovod(min_nodes=fewest or 0, max_nodes=most or 0),
    )


def _cluster(counts: Mapping[str, Any]) -> Distribution:
    from trainyard.job.v1 import spec_pb2

    workers, servers, chief, evaluator = (counts[name] for name in _OF_TENSORFLOW)
    if not workers and not chief:
        raise TrainingException("A TensorFlow cluster needs a worker or a chief.", target="worker_count")
    tasks = workers + servers + chief + evaluator
    nodes, processes = counts["node_count"], counts["process_count_per_node"]
    if nodes * processes > tasks:
        raise TrainingException(
            f"{tasks} tasks (worker_count={workers}, parameter_server_count={servers}, chief={chief}, evaluator={evaluator}) are too few for "
            f"node_count={nodes} with process_count_per_node={processes}: nodes would have nothing to do.",
            target="node_count",
        )
    return spec_pb2.Distribution(
        node_count=nodes,
        process_count_per_node=processes,
        tensorflow=spec_pb2.TensorflowCluster(worker_count=workers, parameter_server_count=servers, chief=chief, evaluator=evaluator),
    )
