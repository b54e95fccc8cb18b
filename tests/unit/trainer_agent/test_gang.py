"""What a rank is told of its gang."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.trainer_agent import gang
from trainyard._gang import Task, tasks
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.cluster.v1.resources_pb2 import Resources
from trainyard.job.v1 import job_pb2 as job
from trainyard.job.v1.spec_pb2 import Distribution, Horovod, RunSpec, TensorflowCluster

RING = Distribution(node_count=2, process_count_per_node=2, horovod=Horovod())
CLUSTER = Distribution(node_count=2, tensorflow=TensorflowCluster(chief=True, worker_count=2, parameter_server_count=1, evaluator=True))


def a_gang(distribution: Any, nodes: int) -> Any:
    formed = job.GangFormed(run_id="run", epoch=1, round=1)
    for node in range(nodes):
        ranks = [task.rank for task in tasks(distribution, nodes) if task.node == node]
        formed.members.add(agent_id=f"agent-{node}", address=f"10.0.0.{node + 1}", ports=[61000 + rank for rank in ranks], ranks=ranks)
    return formed


def an_offer(distribution: Any = None, node_index: int = 0, gpus: Sequence[int] = ()) -> Any:
    return cluster.LeaseOffered(run_id="run", epoch=1, node_index=node_index, gpus=gpus, spec=RunSpec(distribution=distribution))


def told(distribution: Any, rank: int, nodes: int = 2, gpus: Sequence[int] = ()) -> dict[str, str]:
    everyone = tasks(distribution, nodes)
    here = [task for task in everyone if task.node == everyone[rank].node]
    return gang.variables(an_offer(distribution, here[0].node, gpus), a_gang(distribution, nodes), everyone[rank], here)


def test_each_task_of_a_cluster_finds_where_all_others_are() -> None:
    config = json.loads(told(CLUSTER, 3)["TF_CONFIG"])

    assert config == {
        "cluster": {"chief": ["10.0.0.1:61000"], "worker": ["10.0.0.2:61001", "10.0.0.1:61002"], "ps": ["10.0.0.2:61003"]},
        "task": {"type": "ps", "index": 0},
        "environment": "cloud",
    }


def test_an_evaluator_is_in_no_cluster_and_has_its_task() -> None:
    config = json.loads(told(CLUSTER, 4)["TF_CONFIG"])

    assert config["task"] == {"type": "evaluator", "index": 0}
    assert sorted(config["cluster"]) == ["chief", "ps", "worker"]


def test_a_task_of_a_cluster_has_azures_names_and_none_of_mpis() -> None:
    given = told(CLUSTER, 2)

    assert (given["AZ_BATCHAI_TASK_TYPE"], given["AZ_BATCHAI_TASK_INDEX"]) == ("worker", "1")
    assert (given["AZUREML_COMMUNICATOR"], given["AZUREML_NODE_COUNT"]) == ("ParameterServer", "2")
    assert not [name for name in given if name.startswith(("OMPI", "PMI"))]


def test_a_rank_of_a_ring_has_mpis_numbers_and_no_cluster() -> None:
    given = told(RING, 3)

    assert {name: number for name, number in given.items() if name.startswith("OMPI_COMM")} == {
        "OMPI_COMM_WORLD_RANK": "3",
        "OMPI_COMM_WORLD_SIZE": "4",
        "OMPI_COMM_WORLD_LOCAL_RANK": "1",
        "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
        "OMPI_COMM_WORLD_NODE_RANK": "1",
    }
    assert (given["PMI_RANK"], given["PMI_SIZE"], given["AZUREML_COMMUNICATOR"]) == ("3", "4", "IntelMpi")
    assert "TF_CONFIG" not in given


def test_a_run_of_one_process_is_told_of_no_gang() -> None:
    offer = cluster.LeaseOffered(run_id="run", epoch=1, gpus=[2])

    given = gang.variables(offer, a_gang(Distribution(), 1), Task(0, 0), [Task(0, 0)])

    assert given == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "2"}


def test_addresses_of_the_sixth_version_have_their_brackets() -> None:
    formed = job.GangFormed(members=[job.GangMember(address="fd00::1", ports=[61000], ranks=[0])])

    assert gang.addresses(formed) == {0: "[fd00::1]:61000"}


# -- devices


def ring(count: int) -> list[Task]:
    return [Task(rank, 0) for rank in range(4, 4 + count)]


@pytest.mark.parametrize(
    ("gpus", "here", "dealt"),
    [
        ([], ring(2), {4: [], 5: []}),
        ([5], ring(1), {4: [5]}),
        ([0, 1, 2, 3], ring(2), {4: [0, 1], 5: [2, 3]}),
        ([0, 1, 2], ring(2), {4: [0, 1], 5: [2]}),
        ([6, 7], ring(3), {4: [6], 5: [7], 6: [6]}),
        ([1], [Task(0, 0, "worker"), Task(1, 0, "ps")], {0: [1], 1: []}),
        ([0, 1], [Task(0, 0, "chief"), Task(1, 0, "evaluator")], {0: [0], 1: [1]}),
        ([1], [Task(0, 0, "chief"), Task(1, 0, "evaluator")], {0: [1], 1: []}),
        ([1], [Task(1, 0, "evaluator")], {1: [1]}),
        ([1], [Task(1, 0, "ps")], {1: []}),
    ],
)
def test_a_nodes_devices_are_dealt_to_its_ranks(gpus: list[int], here: list[Task], dealt: dict[int, list[int]]) -> None:
    assert {rank: list(mine) for rank, mine in gang.devices(gpus, here).items()} == dealt


@given(st.lists(st.integers(0, 100), unique=True, max_size=16), st.integers(1, 20))
def test_no_device_is_given_that_was_not_leased_and_none_twice_where_they_suffice(gpus: list[int], ranks: int) -> None:
    dealt = gang.devices(gpus, ring(ranks))

    given = [gpu for mine in dealt.values() for gpu in mine]
    assert set(given) <= set(gpus)
    if len(gpus) >= ranks:
        assert sorted(given) == sorted(gpus)


def test_a_run_without_devices_sees_none() -> None:
    assert told(RING, 0)["CUDA_VISIBLE_DEVICES"] == ""


def test_ranks_share_the_cores_that_were_asked_for_and_nothing_is_said_of_a_whole_node() -> None:
    assert gang.threads(RunSpec(resources=Resources(cpus=5)), 2)["OMP_NUM_THREADS"] == "2"
    assert gang.threads(RunSpec(resources=Resources(cpus=0.5)), 2)["TF_NUM_INTRAOP_THREADS"] == "1"
    assert gang.threads(RunSpec(), 2) == {}


# -- ports and logs


def test_the_first_node_of_a_ring_has_one_port_more() -> None:
    offers = [cluster.LeaseOffered(node_index=index, ranks=[0, 1], spec=RunSpec(distribution=RING)) for index in (0, 1)]

    assert [gang.ports_wanted(offer) for offer in offers] == [3, 2]
    assert gang.ports_wanted(cluster.LeaseOffered(ranks=[0, 1], spec=RunSpec(distribution=CLUSTER))) == 2


def names(distribution: Any, node_index: int, nodes: int) -> list[str]:
    offer = an_offer(distribution, node_index)
    here = [task for task in tasks(distribution, nodes) if task.node == node_index]
    return [gang.log_name(offer, gang.log_number(offer, local, task), task) for local, task in enumerate(here)]


def test_each_rank_has_a_log_of_its_own() -> None:
    assert names(RING, 1, 2) == ["azureml-logs/70_driver_log_2.txt", "azureml-logs/70_driver_log_3.txt"]
    assert names(CLUSTER, 1, 2) == ["azureml-logs/70_driver_log_worker_0.txt", "azureml-logs/70_driver_log_ps_0.txt"]
    assert names(Distribution(), 0, 1) == ["azureml-logs/70_driver_log.txt"]


def test_a_log_of_an_elastic_gang_is_nobody_elses_though_ranks_are_numbered_anew() -> None:
    elastic = Distribution(node_count=1, process_count_per_node=2, horovod=Horovod(min_nodes=1, max_nodes=3))
    first, late = an_offer(elastic, 0), an_offer(elastic, 5)

    numbers = [gang.log_number(offer, local, Task(local, 0)) for offer in (first, late) for local in range(2)]

    assert numbers == [0, 1, 10, 11]
    assert gang.log_name(first, 0, Task(0, 0)) == "azureml-logs/70_driver_log_0.txt"


@pytest.mark.parametrize(
    ("shape", "endless"),
    [
        (TensorflowCluster(worker_count=2, parameter_server_count=1), ["ps"]),
        (TensorflowCluster(chief=True, worker_count=1, parameter_server_count=1, evaluator=True), ["worker", "ps"]),
        (TensorflowCluster(chief=True, worker_count=1), []),
    ],
)
def test_who_serves_others_is_waited_for_by_nobody(shape: Any, endless: list[str]) -> None:
    everyone = tasks(Distribution(node_count=2, tensorflow=shape))

    assert [task.kind for task in everyone if not task.ends_by_itself] == endless
