"""What a repository knows of its models and their versions. Changed under its lock only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from services.serving.model_server.errors import ServeError
from services.serving.model_server.folders import Fingerprint
from services.serving.model_server.meter import Meter
from services.serving.model_server.served import Served, State, Statistics, VersionStatus
from services.serving.model_server.versions import Labels, ModelConfig


class Loaded(Served, Protocol):
    @property
    def meter(self) -> Meter: ...
    def statistics(self) -> Statistics: ...
    def close(self) -> None:
        """Gives its memory back. Nobody calls it any more."""


Loader = Callable[[ModelConfig, int, str], Loaded]


@dataclass(frozen=True)
class Habits:
    poll_seconds: float = 1.0
    """Between two looks at the folders; 0: one look, at the start."""
    load_threads: int = 1
    retries: int = 5
    retry_seconds: float = 60.0
    labels: Labels = Labels.LOADED
    managed: bool = True
    """Callers may load, unload and change the list of models."""


@dataclass(eq=False)
class Slot:
    model: Known
    version: int
    path: str
    state: State = State.START
    loaded: Loaded | None = None
    lent: int = 0
    given_up: bool = False
    hurried: bool = False  # somebody asks for the next attempt now
    error: ServeError | None = None

    @property
    def failed(self) -> bool:
        """At its last attempt, or for good."""
        return self.error is not None and not self.hurried


@dataclass(eq=False)
class Known:
    config: ModelConfig
    gone: bool = False  # no longer in the list of models
    withdrawn: bool = False  # unloaded by request: what lies in the folder is not looked at until it is loaded again
    wanted: frozenset[int] = frozenset()
    slots: dict[int, Slot] = field(default_factory=dict)
    labels: Mapping[str, int] | None = None
    latest: Slot | None = None
    seen: dict[int, Fingerprint] = field(default_factory=dict)
    missing: str = ""

    def settled(self, *, patient: bool = True) -> bool:
        """One that is wanted answers, or none ever will. Impatient: or none did at its first attempt; others may follow."""
        slots = [self.slots[version] for version in self.wanted if version in self.slots]
        return any(it.state is State.AVAILABLE for it in slots) or all(it.given_up or (it.failed and not patient) for it in slots)

    def is_ready(self) -> bool:
        return self.withdrawn or self.latest is not None


def available(model: Known) -> frozenset[int]:
    return frozenset(version for version, slot in model.slots.items() if slot.state is State.AVAILABLE)


def status(slot: Slot) -> VersionStatus:
    error = slot.error
    return VersionStatus(slot.version, slot.state, error.code if error else 0, error.message if error else "")


def why(model: Known) -> str:
    errors = [slot.error.message for slot in model.slots.values() if slot.error]
    return "; ".join(errors) or model.missing or f"{model.config.name} is still loading"
