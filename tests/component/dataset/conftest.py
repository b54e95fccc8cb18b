from collections.abc import Iterator

import pytest

from services.chassis.topics import make_topics
from tests.component.dataset.source_server import SourceServer, serving
from tests.component.service_process import ServiceProcess, running
from tests.component.topic_log import TopicLog
from trainyard.dataset.v1.dataset_pb2_grpc import DatasetServiceStub


@pytest.fixture(scope="module")
def service(kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    make_topics(kafka_bootstrap)
    with running("dataset", tmp_path_factory.mktemp("dataset"), kafka_bootstrap) as found:
        yield found


@pytest.fixture(scope="module")
def datasets(service: ServiceProcess) -> DatasetServiceStub:
    return DatasetServiceStub(service.channel)


@pytest.fixture(scope="module")
def topic_log(kafka_bootstrap: str) -> Iterator[TopicLog]:
    found = TopicLog(kafka_bootstrap)
    yield found
    found.close()


@pytest.fixture
def server() -> Iterator[SourceServer]:
    with serving() as found:
        yield found
