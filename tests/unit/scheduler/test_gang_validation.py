"""What a run may ask of nodes and processes."""

from __future__ import annotations

from typing import Any

import pytest

from services.scheduler.domain.validate import submission
from tests.unit.scheduler.gang_story import a_cluster, horovod
from tests.unit.scheduler.story import Story, a_submission, names
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.cluster.v1.resources_pb2 import Resources
from trainyard.job.v1 import job_pb2 as job
from trainyard.job.v1 import spec_pb2 as spec


def _resources(**asked: Any) -> dict[str, Any]:
    return {"resources": Resources(**asked)}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"distribution": spec.Distribution()},
        {"distribution": horovod(nodes=1000, each=64)},
        {"distribution": horovod(nodes=4, min_nodes=1, max_nodes=1000)},
        {"distribution": horovod(nodes=4, min_nodes=4)},
        {"distribution": a_cluster(nodes=1, worker_count=64)},
        {"distribution": a_cluster(nodes=3, chief=True, parameter_server_count=2, evaluator=True)},
        _resources(cpus=0.5),
        _resources(gpus=8),
        {"priority": -1000},
        {"priority": 1000},
        {"user": "Ада Лавлейс"},
        {"max_restarts": 100},
        {"checkpoint_folder": "outputs/checkpoints"},
        {"labels": ["fast", "gpu.name=NVIDIA H100", "rack/row=7", "empty="]},
        {"spread": spec.SPREAD_SPREAD},
    ],
)
def test_what_is_within_the_bounds_is_taken(options: dict[str, Any]) -> None:
    assert submission(a_submission(**options)) is None


@pytest.mark.parametrize(
    ("options", "target", "words"),
    [
        ({"distribution": horovod(nodes=1001)}, "node_count", "1000 nodes are the most"),
        ({"distribution": horovod(each=65)}, "process_count_per_node", "more than 64"),
        ({"distribution": horovod(nodes=2, min_nodes=3)}, "node_count", "they are 3, 2 and 2"),
        ({"distribution": horovod(nodes=4, max_nodes=3)}, "node_count", "they are 4, 4 and 3"),
        ({"distribution": horovod(nodes=4, max_nodes=1001)}, "max_nodes", "1000 nodes are the most"),
        ({"distribution": a_cluster(parameter_server_count=3)}, "worker_count", "needs a worker or a chief"),
        ({"distribution": a_cluster(evaluator=True)}, "worker_count", "needs a worker or a chief"),
        ({"distribution": a_cluster(nodes=2, worker_count=129)}, "worker_count", "more than 64 a node"),
        ({"distribution": a_cluster(nodes=1, worker_count=2**32 - 1)}, "worker_count", "more than 64 a node"),
        (_resources(cpus=-1), "resources.cpus", "is no number from 0"),
        (_resources(cpus=float("nan")), "resources.cpus", "is no number from 0"),
        (_resources(cpus=float("inf")), "resources.cpus", "is no number from 0"),
        (_resources(memory_bytes=2**63), "resources.memory_bytes", "are more than"),
        (_resources(gpus=2**31), "resources.gpus", "are more than"),
        (_resources(), "resources", "names nothing"),
        ({"priority": 1001}, "priority", "not within -1000 and 1000"),
        ({"priority": -(2**31)}, "priority", "not within"),
        ({"user": "x" * 256}, "user", "more than 255"),
        ({"user": "a\nb"}, "user", "cannot be printed"),
        ({"max_restarts": 101}, "max_restarts", "100 is the most"),
        ({"resume_from": "../x"}, "resume_from", "is no run's id"),
        ({"checkpoint_folder": "../x"}, "checkpoint_folder", "no safe relative path"),
        ({"checkpoint_folder": "/x"}, "checkpoint_folder", "no safe relative path"),
        ({"checkpoint_folder": "train.py"}, "checkpoint_folder", "is a file of the source"),
        ({"checkpoint_folder": "train.py/x"}, "checkpoint_folder", "'train.py' is a file of the source"),
        ({"labels": ["x"] * 21}, "labels", "more than 20"),
        ({"labels": ["=x"]}, "labels", "is none"),
        ({"labels": ["a b"]}, "labels", "is none"),
        ({"labels": ["a\n"]}, "labels", "is none"),
        ({"labels": ["a=b\x00"]}, "labels", "is none"),
        ({"labels": ["a=1", "a=2"]}, "labels", "two values"),
        ({"spread": 7}, "spread", "neither PACK nor SPREAD"),
    ],
)
def test_what_is_beyond_them_is_named(options: dict[str, Any], target: str, words: str) -> None:
    failure = submission(a_submission(**options))

    assert failure is not None
    assert (failure.code, failure.target) == ("UserError", target)
    assert words in failure.message


@pytest.mark.parametrize("path", ["horovod.py", "horovod/__init__.py"])
def test_a_source_that_hides_horovod_is_refused_where_horovod_is_asked_for(path: str) -> None:
    request = a_submission(distribution=horovod())
    request.spec.source.inline.files[path] = b""
    other = a_submission(distribution=a_cluster(worker_count=1))
    other.spec.source.inline.files[path] = b""

    failure = submission(request)

    assert failure is not None
    assert failure.target == path
    assert submission(other) is None


# -- against the pool


def submitted(**options: Any) -> list[Any]:
    story = Story(node_slots=8).with_pool(max_nodes=8)
    return story.tell(a_submission(**options))


def test_a_gang_that_can_never_fit_is_refused_with_the_reason() -> None:
    (rejected,) = submitted(distribution=horovod(nodes=9))

    assert isinstance(rejected, job.RunRejected)
    assert rejected.failure.code == "NeverFits"
    assert "9" in rejected.failure.message


def test_a_strict_pool_without_gpus_refuses_use_gpu() -> None:
    story = Story(node_slots=8).with_pool()
    story.tell(cluster.PoolCreated(name="strict", max_nodes=1, strict=True))

    told = story.tell(a_submission("gpu", target="strict", use_gpu=True))

    assert names(told) == ["RunRejected"]
    assert told[0].failure.target == "use_gpu"
    assert "strict has no GPU" in told[0].failure.message


def test_any_other_pool_warns() -> None:
    told = submitted(use_gpu=True)

    assert "has no GPU: the run uses CPUs" in next(it.message for it in told if isinstance(it, job.RunWarned))


def test_more_processes_than_cpus_are_a_warning_and_no_error() -> None:
    told = submitted(distribution=a_cluster(nodes=1, worker_count=4, parameter_server_count=2), **_resources(cpus=1))

    assert [it.message for it in told if isinstance(it, job.RunWarned)] == ["6 processes share 1 CPUs on 1 node: they will be slow"]


def test_an_ordinary_run_is_warned_of_nothing() -> None:
    assert "RunWarned" not in names(submitted())
