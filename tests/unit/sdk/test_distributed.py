"""Azure's ways to ask for several processes, and what each becomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trainyard import (
    Estimator,
    Mpi,
    MpiConfiguration,
    ParameterServer,
    RunConfiguration,
    ScriptRunConfig,
    TensorflowConfiguration,
    TrainingException,
)
from trainyard._gang import driver_log, ranks_of, tasks
from trainyard.job.v1.spec_pb2 import Distribution, Horovod, TensorflowCluster


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text("print('hello')\n")
    return tmp_path


def estimated(folder: Path, **options: Any) -> Distribution:
    spec = Estimator(str(folder), entry_script="train.py", compute_target="pool", **options)._to_spec()
    assert spec.HasField("distribution")
    return spec.distribution


def a_ring(nodes: int, processes: int = 1, fewest: int = 0, most: int = 0) -> Distribution:
    return Distribution(node_count=nodes, process_count_per_node=processes, horovod=Horovod(min_nodes=fewest, max_nodes=most))


def a_cluster(nodes: int, workers: int, servers: int, **more: bool) -> Distribution:
    cluster = TensorflowCluster(worker_count=workers, parameter_server_count=servers, **more)
    return Distribution(node_count=nodes, process_count_per_node=1, tensorflow=cluster)


def set_afterwards(workers: int) -> TensorflowConfiguration:
    made = TensorflowConfiguration()
    made.worker_count = workers
    return made


@pytest.mark.parametrize(
    ("options", "meant"),
    [
        ({"distributed_training": MpiConfiguration(), "node_count": 2}, a_ring(2)),
        ({"distributed_training": MpiConfiguration(), "node_count": 2, "process_count_per_node": 3}, a_ring(2, 3)),
        ({"distributed_training": Mpi(2), "node_count": 2}, a_ring(2, 2)),
        ({"distributed_training": MpiConfiguration(2, 4), "node_count": 4, "process_count_per_node": 2}, a_ring(4, 2)),
        ({"distributed_training": Mpi(min_nodes=1, max_nodes=4), "node_count": 2}, a_ring(2, 1, 1, 4)),
        ({"distributed_backend": "mpi", "node_count": 2}, a_ring(2)),
        ({"distributed_backend": "mpi"}, a_ring(1)),
        ({"distributed_training": set_afterwards(2), "node_count": 2}, a_cluster(2, 2, 1)),
        ({"distributed_training": ParameterServer(2, 2), "node_count": 4}, a_cluster(4, 2, 2)),
        ({"distributed_training": TensorflowConfiguration(2, 0), "node_count": 2}, a_cluster(2, 2, 0)),
        ({"distributed_training": TensorflowConfiguration(), "worker_count": 3}, a_cluster(1, 3, 1)),
        ({"distributed_training": TensorflowConfiguration(0, 1, chief=True)}, a_cluster(1, 0, 1, chief=True)),
        ({"distributed_training": TensorflowConfiguration(chief=True, evaluator=True)}, a_cluster(1, 1, 1, chief=True, evaluator=True)),
        ({"distributed_backend": "ps", "worker_count": 2, "parameter_server_count": 2}, a_cluster(1, 2, 2)),
    ],
)
def test_an_estimators_options_of_both_eras_say_what_the_gang_is(folder: Path, options: dict[str, Any], meant: Distribution) -> None:
    assert estimated(folder, **options) == meant


def test_one_process_needs_no_distribution(folder: Path) -> None:
    spec = Estimator(str(folder), entry_script="train.py", compute_target="pool")._to_spec()

    assert not spec.HasField("distribution")


@pytest.mark.parametrize(
    ("options", "target", "told"),
    [
        ({"node_count": 2}, "node_count", "not how they work together"),
        ({"process_count_per_node": 2}, "process_count_per_node", "not how they work together"),
        ({"worker_count": 2}, "worker_count", "not how they work together"),
        ({"distributed_training": MpiConfiguration(2), "process_count_per_node": 3}, "process_count_per_node", "2 and 3"),
        ({"distributed_training": MpiConfiguration(node_count=3), "node_count": 2}, "node_count", "2 and 3"),
        ({"distributed_training": TensorflowConfiguration(3), "worker_count": 2}, "worker_count", "2 and 3"),
        ({"distributed_training": MpiConfiguration(), "worker_count": 2}, "worker_count", "no meaning"),
        ({"distributed_training": MpiConfiguration(), "node_count": 0}, "node_count", "from 1 to 1000"),
        ({"distributed_training": MpiConfiguration(process_count_per_node=True)}, "process_count_per_node", "True"),
        ({"distributed_training": MpiConfiguration(min_nodes=2)}, "min_nodes", "does not lie between"),
        ({"distributed_training": MpiConfiguration(node_count=3, max_nodes=2)}, "max_nodes", "does not lie between"),
        ({"distributed_training": TensorflowConfiguration(0, 1)}, "worker_count", "worker or a chief"),
        ({"distributed_training": TensorflowConfiguration(1, 1), "node_count": 3}, "node_count", "nothing to do"),
        ({"distributed_training": TensorflowConfiguration(chief="yes")}, "chief", "True or False"),  # type: ignore[arg-type]
        ({"distributed_training": object()}, "distributed_training", "no configuration"),
        ({"distributed_training": MpiConfiguration}, "distributed_training", "no configuration"),
        ({"distributed_training": MpiConfiguration(), "distributed_backend": "mpi"}, "distributed_backend", "together"),
    ],
)
def test_what_contradicts_itself_is_refused_at_submission(folder: Path, options: dict[str, Any], target: str, told: str) -> None:
    with pytest.raises(TrainingException, match=told) as caught:
        estimated(folder, **options)

    assert caught.value.target == target


def test_a_misspelt_count_is_an_error_where_it_is_set() -> None:
    configuration = TensorflowConfiguration()

    with pytest.raises(AttributeError, match="workers"):
        configuration.workers = 2  # type: ignore[attr-defined]


def test_a_script_run_configuration_brings_its_nodes_with_it(folder: Path) -> None:
    ring = ScriptRunConfig(folder, "train.py", distributed_job_config=MpiConfiguration(2, 3))._to_spec()
    config = ScriptRunConfig(folder, "train.py", distributed_job_config=TensorflowConfiguration(2, 1))
    config.run_config.node_count = 3

    assert ring.distribution == a_ring(3, 2)
    assert config._to_spec().distribution == a_cluster(3, 2, 1)


@pytest.mark.parametrize("communicator", ["IntelMpi", "OpenMpi"])
def test_a_run_configurations_communicator_chooses_between_its_two(folder: Path, communicator: str) -> None:
    configuration = RunConfiguration("train.py", communicator=communicator)
    configuration.node_count, configuration.mpi.process_count_per_node = 2, 2
    servers = RunConfiguration("train.py", communicator="ParameterServer")
    servers.tensorflow.worker_count = 2

    assert ScriptRunConfig(folder, run_config=configuration)._to_spec().distribution == a_ring(2, 2)
    assert ScriptRunConfig(folder, run_config=servers)._to_spec().distribution == a_cluster(1, 2, 1)


def test_a_run_configuration_that_is_set_without_a_communicator_is_not_passed_over_in_silence(folder: Path) -> None:
    configuration = RunConfiguration("train.py")
    configuration.mpi.process_count_per_node = 2
    gloo = RunConfiguration("train.py", communicator="Gloo")

    with pytest.raises(TrainingException, match="communicator is 'None'"):
        ScriptRunConfig(folder, run_config=configuration)._to_spec()
    with pytest.raises(TrainingException, match="'Gloo'"):
        ScriptRunConfig(folder, run_config=gloo)._to_spec()


def test_two_kinds_of_distribution_at_once_are_refused(folder: Path) -> None:
    configuration = RunConfiguration("train.py", communicator="ParameterServer")

    with pytest.raises(TrainingException, match="by MPI and by TensorFlow"):
        ScriptRunConfig(folder, run_config=configuration, distributed_job_config=MpiConfiguration(2))._to_spec()


def test_the_output_of_a_rank_is_in_a_log_that_its_task_names() -> None:
    cluster = a_cluster(2, 1, 1, chief=True)

    assert [driver_log(cluster, rank) for rank in range(3)] == [
        "azureml-logs/70_driver_log_chief_0.txt",
        "azureml-logs/70_driver_log_worker_0.txt",
        "azureml-logs/70_driver_log_ps_0.txt",
    ]
    assert driver_log(Distribution(), 0) == "azureml-logs/70_driver_log.txt"
    assert driver_log(a_ring(1, 1, 1, 1), 0) == "azureml-logs/70_driver_log_0.txt"
    assert driver_log(a_ring(1, 1, 1, 2), 1) == "azureml-logs/70_driver_log_1.txt"


@pytest.mark.parametrize("nodes", [1, 2, 3, 4])
@pytest.mark.parametrize("chief", [True, False])
def test_an_evaluator_is_on_the_node_whose_checkpoints_it_reads(nodes: int, chief: bool) -> None:
    cluster = a_cluster(nodes, 3, 1, chief=chief, evaluator=True)

    dealt = {(task.kind, task.index): task.node for task in tasks(cluster)}

    assert dealt["evaluator", 0] == dealt["chief" if chief else "worker", 0]
    assert all(ranks_of(cluster, node) for node in range(nodes))
