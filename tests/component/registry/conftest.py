from collections.abc import Iterator

import pytest

from services.chassis.topics import make_topics
from tests.component.service_process import ServiceProcess, running
from tests.component.topic_log import TopicLog
from trainyard._objects import MinioObjects
from trainyard.model.v1.model_pb2_grpc import ModelServiceStub

BUCKET = "registry-tests"


@pytest.fixture(scope="module")
def objects(minio_server: tuple[str, str, str]) -> MinioObjects:
    found = MinioObjects(*minio_server, BUCKET)
    found.make_bucket()
    return found


@pytest.fixture(scope="module")
def service(
    kafka_bootstrap: str, minio_server: tuple[str, str, str], objects: MinioObjects, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServiceProcess]:
    make_topics(kafka_bootstrap)
    endpoint, access_key, secret_key = minio_server
    store = {
        "OBJECT_STORE__ENDPOINT": endpoint,
        "OBJECT_STORE__ACCESS_KEY": access_key,
        "OBJECT_STORE__SECRET_KEY": secret_key,
        "OBJECT_STORE__BUCKET": BUCKET,
    }
    with running("registry", tmp_path_factory.mktemp("registry"), kafka_bootstrap, **store) as found:
        yield found


@pytest.fixture(scope="module")
def models(service: ServiceProcess) -> ModelServiceStub:
    return ModelServiceStub(service.channel)


@pytest.fixture(scope="module")
def topic_log(kafka_bootstrap: str) -> Iterator[TopicLog]:
    found = TopicLog(kafka_bootstrap)
    yield found
    found.close()
