from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from deploy.local import cache, kafka
from services.chassis.topics import make_topics
from tests.component.service_process import ServiceProcess, running
from tests.component.topic_log import TopicLog
from tests.conftest import await_port, free_port

_numbers = itertools.count()


@pytest.fixture(scope="session")
def history_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A broker of history's own: it reads every topic, and what other tests leave in them is no part of these."""
    port = free_port()
    process = kafka.start(cache.part("kafka"), tmp_path_factory.mktemp("history-kafka"), port, free_port())
    try:
        await_port(port, lambda: process.poll() is None)
        make_topics(f"127.0.0.1:{port}")
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def topic_log(history_kafka: str) -> Iterator[TopicLog]:
    found = TopicLog(history_kafka)
    yield found
    found.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of the kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'history.db'}"
    url = str(request.getfixturevalue("postgres_url"))
    name = f"history_{next(_numbers)}"
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return url.replace("/postgres", f"/{name}")


Serving = Callable[..., AbstractContextManager[ServiceProcess]]


@pytest.fixture
def serving(history_kafka: str, minio_server: tuple[str, str, str], tmp_path: Path) -> Serving:
    """`with serving(database_url) as service`: history as a process of its own."""
    endpoint, access_key, secret_key = minio_server
    store = {
        "OBJECT_STORE__ENDPOINT": endpoint,
        "OBJECT_STORE__ACCESS_KEY": access_key,
        "OBJECT_STORE__SECRET_KEY": secret_key,
        "OBJECT_STORE__BUCKET": "history-tests",
    }

    @contextmanager
    def run(database_url: str = "") -> Iterator[ServiceProcess]:
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)
        with running("history", home, history_kafka, DATABASE_URL=database_url, **store) as service:
            yield service

    return run
