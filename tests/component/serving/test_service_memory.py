"""One budget of memory over all endpoints, measured on real servers: the serving service as a process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.component.service_process import ServiceProcess
from tests.component.service_process import running as service_running
from tests.component.serving.calls import a_name, clear, history, kinds, until
from tests.component.serving.conftest import settings_of
from tests.component.serving.test_service import _Through
from tests.component.serving.test_service_code import live
from tests.component.topic_log import TopicLog
from trainyard._errors import WebserviceException
from trainyard._inference_config import InferenceConfig
from trainyard._model import Model
from trainyard._objects import MinioObjects
from trainyard._webservice import Webservice
from trainyard.endpoint.v1.endpoint_pb2 import EndpointSlept
from trainyard.endpoint.v1.endpoint_pb2_grpc import EndpointServiceStub

pytestmark = [pytest.mark.component, pytest.mark.timeout(240)]
MIB = 1 << 20
BUDGET = 400 * MIB
SCRIPT = "kept = None\ndef init():\n    global kept\n    kept = b'x' * {size}\ndef run(data): return data.upper()\n"


@pytest.fixture(scope="module")
def tight(
    kafka_bootstrap: str,
    minio_server: tuple[str, str, str],
    objects: MinioObjects,
    topic_log: TopicLog,
    cache: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ServiceProcess]:
    """A service whose servers may take 400 MiB together."""
    budget = {"SERVING__MEMORY_BUDGET_BYTES": str(BUDGET), "SERVING__LEAST_AWAKE_SECONDS": "1"}
    settings = settings_of(minio_server, cache) | budget
    with service_running("serving", tmp_path_factory.mktemp("tight"), kafka_bootstrap, **settings) as found:
        clear(EndpointServiceStub(found.channel))
        yield found


@pytest.fixture
def space(tight: ServiceProcess, objects: MinioObjects) -> Any:
    return SimpleNamespace(_clients=_Through(tight.channel), _objects=objects)


def deployed(space: Any, folder: Path, mib: int) -> Webservice:
    """Code that keeps so much in memory."""
    folder.mkdir(exist_ok=True)
    (folder / "score.py").write_text(SCRIPT.format(size=mib * MIB))
    return Model.deploy(space, a_name("memory"), [], InferenceConfig(str(folder / "score.py")))


def test_the_one_called_longest_ago_sleeps_for_the_one_that_is_called(space: Any, topic_log: TopicLog, tmp_path: Path) -> None:
    first = live(deployed(space, tmp_path / "first", 250))
    second = live(deployed(space, tmp_path / "second", 250))
    until(lambda: "EndpointSlept" in kinds(history(topic_log, first.name)), "sleep of the first")

    said = first.run("x")  # through the door, which wakes it
    until(lambda: "EndpointSlept" in kinds(history(topic_log, second.name)), "sleep of the second")
    again = second.run("y")
    first.update_deployment_state()
    (slept, *_) = [it for it in history(topic_log, first.name) if isinstance(it, EndpointSlept)]

    assert (said, again) == ("X", "Y")
    assert 250 * MIB < slept.memory_bytes < BUDGET
    assert "and their budget is 400 MiB" in slept.why
    assert first.state == "Healthy"


def test_one_that_is_larger_than_the_budget_by_itself_fails_with_both_figures(space: Any, tmp_path: Path) -> None:
    service = deployed(space, tmp_path, 600)

    with pytest.raises(WebserviceException, match=r"MiB of memory, and 400 MiB is what all endpoints may take together"):
        service.wait_for_deployment(timeout_sec=90)
