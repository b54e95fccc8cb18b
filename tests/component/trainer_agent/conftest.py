from __future__ import annotations

from collections.abc import Iterator

import pytest

from services.chassis.topics import make_topics
from tests.component.topic_log import TopicLog
from trainyard._objects import MinioObjects

BUCKET = "agent-tests"


@pytest.fixture(scope="module")
def objects(minio_server: tuple[str, str, str]) -> MinioObjects:
    found = MinioObjects(*minio_server, BUCKET)
    found.make_bucket()
    return found


@pytest.fixture(scope="module")
def topic_log(kafka_bootstrap: str) -> Iterator[TopicLog]:
    make_topics(kafka_bootstrap)
    found = TopicLog(kafka_bootstrap)
    yield found
    found.close()
