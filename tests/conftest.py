"""Session fixtures: one real broker and one real object store on free loopback ports."""

import contextlib
import gc
import logging
import random
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

from deploy.local import cache, kafka, minio
from tests import postgres

# How long an example takes says how busy the machine is.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
_PORTS = (22_000, 32_000)


def free_port() -> int:
    """Below those that the kernel gives to outgoing connections: whoever knocks at a port of theirs while its server is down may be
    given that very port, meets himself there, and the server finds it taken when it comes back."""
    chance = random.SystemRandom()
    while True:
        port = chance.randrange(*_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def await_port(port: int, alive: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and alive():
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"nothing answers on 127.0.0.1:{port}")


@pytest.fixture(scope="session", autouse=True)
def _plain_logs() -> None:
    """structlog's own default draws a picture of every traceback, which takes longer than the test."""
    structlog.configure(processors=[structlog.processors.format_exc_info, structlog.dev.ConsoleRenderer(colors=False)])


@pytest.fixture
def sockets_collected() -> Iterator[None]:
    """For tests whose clients meet a broker that is away. kafka-python leaves sockets that could not connect to the garbage
    collector, and its log records, which pytest keeps, hold on to them until some later test meets the warning."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)
    gc.collect()


@pytest.fixture(scope="session")
def kafka_bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    process = kafka.start(cache.part("kafka"), tmp_path_factory.mktemp("kafka"), port, free_port())
    try:
        await_port(port, lambda: process.poll() is None)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def minio_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, str]]:
    """(endpoint, access key, secret key)"""
    port = free_port()
    home: Path = tmp_path_factory.mktemp("minio")
    process = minio.start(cache.part("minio") / "minio", home, port, "trainyard", "trainyard-test")
    try:
        await_port(port, lambda: process.poll() is None)
        yield f"127.0.0.1:{port}", "trainyard", "trainyard-test"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A server of its own; whoever uses it makes a database of its own, or is alone there."""
    folder = postgres.binaries()
    if folder is None:
        pytest.skip(postgres.MISSING)
    with postgres.running(folder, free_port(), await_port) as url:
        yield url
