"""What serving needs of the world outside: a version's files, an environment, and server processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from services.serving.domain.model_version import ModelVersion
from trainyard.event.v1.artifact_pb2 import Failure

Say = Callable[[str], None]
"""Takes a line for the endpoint's log; may be called from any thread."""


class CannotServe(Exception):
    """A version cannot be brought up: why, for a person to act on."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class PortTaken(Exception):
    """Somebody else listens where the server was to."""


@dataclass(frozen=True)
class ModelFolder:
    """A version's files on this node, each checked against its digest."""

    path: Path  # of the SavedModel
    digest: str  # of all files


class ModelFiles(Protocol):
    async def fetch(self, version: ModelVersion, say: Say) -> ModelFolder:
        """Raises CannotServe, and PlatformUnavailableException where the object store does not answer."""
        ...


class Environments(Protocol):
    def is_there(self, version: ModelVersion) -> bool:
        """False: `prepare` will have to build."""
        ...

    async def prepare(self, version: ModelVersion, say: Say) -> Path:
        """The Python of an environment in which the version can be served. Raises CannotServe."""
        ...


@dataclass(frozen=True)
class Ports:
    grpc: int = 0  # 0: any that is free
    rest: int = 0


class Server(Protocol):
    """A model server that answers."""

    @property
    def ports(self) -> Ports: ...

    @property
    def signatures(self) -> tuple[str, ...]: ...

    async def wait(self) -> Failure:
        """How it ended, when it does."""
        ...

    async def stop(self, grace_seconds: float) -> None:
        """Drains it, and ends it after the grace."""
        ...


class Servers(Protocol):
    async def start(self, python: Path, version: ModelVersion, folder: ModelFolder, ports: Ports, say: Say) -> Server:
        """Returns when it answers. Raises CannotServe, and PortTaken."""
        ...

    def is_free(self, ports: Ports) -> bool:
        """Nobody listens on any of them."""
        ...


class Logs(Protocol):
    def of(self, endpoint: str) -> Say: ...

    def tail(self, endpoint: str, lines: int) -> list[str]:
        """The last lines of an endpoint's log, oldest first; none where there is none yet."""
        ...
