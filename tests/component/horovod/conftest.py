"""The environment with Horovod's wheel, compiled the first time and kept in the cache; and nodes that end with the test."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from services.chassis.environments import acquire, definition
from tests.component.horovod.ranks import Node
from trainyard._environment_cache import default_cache

MakeNode = Callable[..., Node]


@pytest.fixture(scope="session")
def python_215() -> Path:
    return acquire(definition("tensorflow", "2.15", [], horovod=True), default_cache(), print)[0].python


@pytest_asyncio.fixture
async def node(python_215: Path, tmp_path: Path) -> AsyncIterator[MakeNode]:
    """Makes agent-<n> on 127.0.0.<n>."""
    made: list[Node] = []

    def make(number: int, *, python: Path = python_215, elastic: bool = False) -> Node:
        made.append(Node(f"agent-{number}", f"127.0.0.{number}", python, tmp_path, elastic=elastic))
        return made[-1]

    yield make
    for each in made:
        await each.lost()


@pytest.fixture(scope="session")
def python_221() -> Path:
    """Minutes of compiling more, so only where they are asked for."""
    if "TRAINYARD_HOROVOD_221" not in os.environ:
        pytest.skip("Horovod for TensorFlow 2.21 is compiled where TRAINYARD_HOROVOD_221 is set")
    return acquire(definition("tensorflow", "2.21", [], horovod=True), default_cache(), print)[0].python
