"""What serving needs of the world outside: files of models and code, an environment, and server processes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from services.serving.domain.endpoint import Endpoint
from services.serving.domain.model_version import ModelVersion
from trainyard.endpoint.v1.endpoint_pb2 import Limits, Scoring, Tls
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
class Content:
    """All that one deployment's server has to have."""

    endpoint: str
    deployment: int
    title: str  # for people: "mnist:1", or "score.py with mnist:1"
    models: tuple[ModelVersion, ...]
    scoring: Scoring | None = None  # None: without code, and there is one model
    limits: Limits = field(default_factory=Limits)
    tls: Tls | None = None
    memory_bytes: int = 0  # that its server took when it was up last; 0: not known
    alias: str = ""  # by which the first model was asked for: without code it is a label of the version; "": by its version

    @property
    def id(self) -> str:
        """What failures name as their target."""
        return self.models[0].id if self.models else self.title


@dataclass(frozen=True)
class ModelFolder:
    """A version's files on this node, each checked against its digest."""

    path: Path  # of the SavedModel, or the folder that has the TFLite file
    digest: str  # of all files
    whole: Path = Path()  # the folder of all files


@dataclass(frozen=True)
class Fetched:
    """What lies on this node for a deployment: the one SavedModel or TFLite model, or the working folder of its code with its models beside it."""

    path: Path
    digest: str  # of all files of all models
    model_dir: Path | None = None  # what the code knows as AZUREML_MODEL_DIR


class Files(Protocol):
    async def fetch(self, content: Content, say: Say) -> Fetched:
        """Raises CannotServe, and PlatformUnavailableException where the object store does not answer."""
        ...

    async def discard(self, content: Content) -> None:
        """What was fetched for this deployment alone; its server has ended."""
        ...


class Environments(Protocol):
    def is_there(self, content: Content) -> bool:
        """False: `prepare` will have to build."""
        ...

    async def prepare(self, content: Content, say: Say) -> Path:
        """The Python of an environment in which it can be served. Raises CannotServe."""
        ...


@dataclass(frozen=True)
class Ports:
    grpc: int = 0  # 0: any that is free
    rest: int = 0


class Server(Protocol):
    """A server process that answers."""

    @property
    def ports(self) -> Ports: ...

    @property
    def signatures(self) -> tuple[str, ...]: ...

    async def calls(self) -> int | None:
        """How many it was asked so far; None where it does not tell."""
        ...

    async def memory(self) -> int:
        """Bytes that it and what it has started take now."""
        ...

    async def wait(self) -> Failure:
        """How it ended, when it does."""
        ...

    async def stop(self, grace_seconds: float) -> None:
        """Drains it, and ends it after the grace."""
        ...


class Servers(Protocol):
    async def start(self, python: Path, content: Content, fetched: Fetched, ports: Ports, say: Say) -> Server:
        """Returns when it answers. Raises CannotServe, and PortTaken."""
        ...

    async def adopt(self, content: Content, say: Say) -> tuple[Server, str] | None:
        """The server of that deployment which the service before this one left running, and the digest of its files; None where there is none,
        or it is not what is wanted. Each is given once."""
        ...

    async def end_all_but(self, wanted: Collection[tuple[str, int]]) -> None:
        """Ends what the service before this one left running of all other deployments."""
        ...

    async def leave(self) -> None:
        """From here on whatever still runs ends with this service."""
        ...

    def is_free(self, ports: Ports) -> bool:
        """Nobody listens on any of them."""
        ...


class Logs(Protocol):
    def of(self, endpoint: str) -> Say: ...

    def tail(self, endpoint: str, lines: int) -> list[str]:
        """The last lines of an endpoint's log, oldest first; none where there is none yet."""
        ...


class Table(Protocol):
    """What the door goes by."""

    def keep(self, endpoints: Sequence[Endpoint]) -> None:
        """From here on calls go where these answer."""
        ...


class Doors(Protocol):
    """Who may call: what servers read."""

    def keep(self, endpoint: Endpoint) -> None:
        """From here on its servers ask for what the endpoint's settings say."""
        ...
