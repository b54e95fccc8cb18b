"""What the fronts of the model server stand on: loaded versions that are borrowed for a call, and what is known of all of them.

Every protocol is a translation from its messages to these few calls and back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol

from services.serving.model_server.signatures import Signature


class State(IntEnum):
    """Of a version, with TensorFlow Serving's numbers (ModelVersionStatus.State)."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(frozen=True)
class VersionStatus:
    version: int
    state: State
    code: int = 0
    """Canonical status code; not 0 where it ended by a fault."""
    message: str = ""


@dataclass(frozen=True)
class Timing:
    """How often, and for how long altogether, in nanoseconds."""

    count: int = 0
    nanoseconds: int = 0


@dataclass(frozen=True)
class Statistics:
    """Of one version since it was loaded."""

    version: int
    last_inference_ms: int = 0
    """Milliseconds since 1970; 0: none yet."""
    inferences: int = 0
    """Rows: a call with a batch of 8 counts 8."""
    executions: int = 0
    """Runs of the graph: several calls may share one."""
    success: Timing = Timing()
    fail: Timing = Timing()
    queue: Timing = Timing()
    compute: Timing = Timing()
    batches: Mapping[int, Timing] = field(default_factory=dict)
    """By batch size."""


class Served(Protocol):
    """One loaded version. Thread safe; its methods raise only ServeError."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def platform(self) -> str:
        """tensorflow_savedmodel or tflite."""

    @property
    def prompt(self) -> bool:
        """Lately it answered in microseconds, and no call waits for others."""

    @property
    def signatures(self) -> Mapping[str, Signature]: ...
    @property
    def unserved(self) -> Mapping[str, str]:
        """Signatures that the model has and nobody can call, each with the reason."""

    def signature(self, name: str) -> Signature:
        """The named one, or with "" the default one. Raises FAILED_PRECONDITION."""

    def predict(
        self, signature: Signature, inputs: Mapping[str, Any], output_filter: Sequence[str] = (), deadline: float | None = None
    ) -> dict[str, Any]:
        """NumPy arrays by alias in and out. `deadline`: by time.monotonic(); work that is late is dropped with DEADLINE_EXCEEDED."""


class Models(Protocol):
    """All that a process serves. Thread safe; raises ServeError."""

    def borrow(self, name: str, version: int | None = None, label: str = "") -> AbstractContextManager[Served]:
        """The version meant, or the newest that is there; it is not unloaded before it was given back."""

    def names(self) -> Sequence[str]:
        """Of all models that are known, loaded or not."""

    def versions(self, name: str) -> Sequence[VersionStatus]:
        """Newest first. Raises NOT_FOUND."""

    def statistics(self, name: str, version: int | None = None) -> Sequence[Statistics]:
        """Of all versions that are loaded, or of one. Raises NOT_FOUND."""

    def load(self, name: str) -> None:
        """Loads what lies in its folder now, and waits for it."""

    def unload(self, name: str) -> None:
        """Takes it out of service, once the calls under way are through."""

    def is_ready(self) -> bool:
        """Every model that is wanted has a version that answers."""
