"""TensorFlow itself, in ranks that agents start: it finds its cluster in what they are given, and trains."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.chassis.environments import acquire, definition
from tests.component.service_process import REPO
from tests.component.topic_log import TopicLog
from tests.component.trainer_agent.conftest import BUCKET
from tests.component.trainer_agent.scheduled_agents import Scheduler, agents_on
from trainyard._environment_cache import default_cache
from trainyard._gang import tasks
from trainyard._objects import MinioObjects
from trainyard.cluster.v1 import cluster_pb2 as cluster
from trainyard.job.v1.spec_pb2 import Distribution, EnvironmentSpec, InlineSource, RunSpec, Source, TensorflowCluster

pytestmark = [pytest.mark.component, pytest.mark.timeout(900)]
SCRIPTS = REPO / "tests" / "system" / "scripts" / "distributed"
ONE, TWO = ("agent-22",), ("agent-22", "agent-23")
# Four processes that import TensorFlow take a minute where two cores have much else to do.
_PATIENCE_SECONDS = 400.0


@pytest.fixture(scope="module")
def scheduler(
    tmp_path_factory: pytest.TempPathFactory,
    kafka_bootstrap: str,
    minio_server: tuple[str, str, str],
    objects: MinioObjects,
    topic_log: TopicLog,
) -> Iterator[Scheduler]:
    acquire(definition("tensorflow", "", []), default_cache(), print)
    addresses = {"agent-22": "127.0.0.2", "agent-23": "127.0.0.3"}
    home: Path = tmp_path_factory.mktemp("agents")
    with agents_on(addresses, home, kafka_bootstrap, minio_server, BUCKET) as agents:
        yield Scheduler(topic_log, objects, agents)


LEGACY_KERAS = EnvironmentSpec(
    framework="tensorflow", framework_version="2.21", pip_packages=["tf_keras"], environment_variables={"TF_USE_LEGACY_KERAS": "1"}
)


def trained(
    scheduler: Scheduler,
    script: str,
    nodes: tuple[str, ...],
    tensorflow: Any,
    version: str = "",
    environment: EnvironmentSpec | None = None,
) -> dict[str, str]:
    """All that the run has left, once everyone that ends by itself has ended with 0, and the others have been ended."""
    run = f"{script.removesuffix('.py')}_{version}".replace("_", "-").replace(".", "-")
    distribution = Distribution(node_count=len(nodes), tensorflow=tensorflow)
    spec = RunSpec(
        source=Source(inline=InlineSource(files={script: (SCRIPTS / script).read_bytes()})),
        entry_script=script,
        environment=environment or EnvironmentSpec(framework="tensorflow", framework_version=version),
        distribution=distribution,
    )
    scheduler.offers(run, spec, nodes)
    scheduler.forms(run, nodes, patience=_PATIENCE_SECONDS)
    enders = {task.rank for task in tasks(distribution) if task.ends_by_itself}

    def all_ended() -> list[Any] | None:
        ends = scheduler.heard(run, cluster.TaskExited)
        broken = [it for it in ends if it.exit_code and not it.stopped]
        assert not broken, "\n".join(broken[0].last_lines)
        return ends if enders <= {it.rank for it in ends} else None

    try:
        scheduler.until(all_ended, f"the end of {script}", _PATIENCE_SECONDS)
    finally:
        for agent_id in nodes:
            scheduler.revokes(run, agent_id, save_outputs=True)
    saved = scheduler.reports(run, cluster.OutputsUploaded, len(nodes))
    ends = scheduler.heard(run, cluster.TaskExited)
    assert {it.rank for it in ends if it.stopped} <= {task.rank for task in tasks(distribution) if not task.ends_by_itself}
    found: dict[str, str] = {}
    for report in saved:
        found |= {file.path: scheduler.objects.get_bytes(file.object_key).decode("utf-8", "replace") for file in report.outputs.files}
    return found


def test_session_code_of_tensorflow_1_trains_with_a_parameter_server(scheduler: Scheduler) -> None:
    files = trained(scheduler, "tf1_parameter_server.py", TWO, TensorflowCluster(worker_count=2, parameter_server_count=1), "1.13")

    for worker in (0, 1):
        assert f"worker {worker}: step" in files[f"azureml-logs/70_driver_log_worker_{worker}.txt"]
    assert "outputs/train/checkpoint" in files


def test_an_estimator_trains_and_evaluates_with_a_chief_and_an_evaluator(scheduler: Scheduler) -> None:
    shape = TensorflowCluster(chief=True, worker_count=1, parameter_server_count=1, evaluator=True)

    files = trained(scheduler, "estimator.py", TWO, shape)

    assert "done: chief 0" in files["azureml-logs/70_driver_log_chief_0.txt"]
    assert "evaluated step 3" in files["azureml-logs/70_driver_log_evaluator_0.txt"]
    assert any(path.startswith("outputs/model/eval/") for path in files)


def test_a_chief_coordinates_workers_and_parameter_servers_of_tensorflow_2(scheduler: Scheduler) -> None:
    shape = TensorflowCluster(chief=True, worker_count=2, parameter_server_count=1)

    files = trained(scheduler, "parameter_server_strategy.py", TWO, shape)

    assert "chief: 20 steps" in files["azureml-logs/70_driver_log_chief_0.txt"]
    assert abs(float(files["outputs/weight"]) - 3.0) < 0.5


@pytest.mark.parametrize(
    ("script", "version", "environment"),
    [
        ("multi_worker_mirrored.py", "2.15", None),
        ("multi_worker_loop.py", "2.15", None),
        ("multi_worker_loop.py", "2.21", None),
        ("multi_worker_mirrored.py", "2.21", LEGACY_KERAS),
    ],
    ids=["2.15-fit", "2.15-loop", "2.21-loop", "2.21-fit"],
)
def test_mirrored_workers_have_the_same_weights(
    scheduler: Scheduler, script: str, version: str, environment: EnvironmentSpec | None
) -> None:
    acquire(definition("tensorflow", version, environment.pip_packages if environment else []), default_cache(), print)
    files = trained(scheduler, script, TWO, TensorflowCluster(worker_count=2), version, environment)

    first, second = (json.loads(files[f"outputs/weights_{index}"]) for index in (0, 1))
    assert first == second
    assert first["workers"] == 2 and first["weights"][0] != 0
