"""Which versions of a model are to be loaded and unloaded: TensorFlow Serving's policies, and its rule that the new one is there before
the old one goes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from services.serving.model_server.errors import FAILED_PRECONDITION, ServeError, invalid
from services.serving.model_server.served import State


@dataclass(frozen=True)
class Latest:
    """So many of the highest numbers."""

    count: int = 1


@dataclass(frozen=True)
class All:
    """Whatever lies there."""


@dataclass(frozen=True)
class Specific:
    """Those, as far as they lie there."""

    versions: frozenset[int]


Policy = Latest | All | Specific


@dataclass(frozen=True)
class ModelConfig:
    """A model that is to be served."""

    name: str
    base_path: str
    """The folder that has a folder for each version."""
    platform: str = "tensorflow"
    policy: Policy = Latest()
    labels: Mapping[str, int] = field(default_factory=dict)
    fixed: Mapping[int, str] = field(default_factory=dict)
    """Folders of versions that lie elsewhere; then the base path is not looked at."""


@dataclass(frozen=True)
class Standing:
    """Of a version that was wanted at some time."""

    state: State
    given_up: bool = False
    """All attempts to load it failed, and it was wanted ever since."""


@dataclass(frozen=True)
class Load:
    version: int


@dataclass(frozen=True)
class Unload:
    version: int


def aspired(policy: Policy, found: Iterable[int]) -> frozenset[int]:
    """What the policy wants of what lies there."""
    match policy:
        case Latest(count):
            return frozenset(sorted(found)[-max(count, 1) :])
        case Specific(versions):
            return versions & frozenset(found)
        case All():
            return frozenset(found)


def steps(wanted: frozenset[int], known: Mapping[int, Standing]) -> list[Load | Unload]:
    """What to do now. An old version stays until a wanted one answers; it goes at once where none is wanted any more."""
    loads = [Load(version) for version in sorted(wanted, reverse=True) if _may_load(known.get(version))]
    answers = any(version in wanted and standing.state is State.AVAILABLE for version, standing in known.items())
    if wanted and not answers:
        return [*loads]
    return [
        *loads,
        *(Unload(version) for version, it in sorted(known.items()) if version not in wanted and it.state is State.AVAILABLE),
    ]


def _may_load(standing: Standing | None) -> bool:
    return standing is None or (standing.state is State.END and not standing.given_up)


def check_change(before: Mapping[str, ModelConfig], after: Sequence[ModelConfig]) -> None:
    """Raises ServeError where the new list of models cannot follow the old one."""
    names = set()
    for config in after:
        if not config.name:
            raise invalid(f"the model at {config.base_path!r} has no name")
        if config.name in names:
            raise invalid(f"Illegal to list model {config.name} multiple times in config list")
        names.add(config.name)
        if not config.base_path.startswith(("/", "s3://")) and not config.fixed:
            raise invalid(f"Expected model {config.name} to have an absolute path or URI; got base_path()={config.base_path}")
        old = before.get(config.name)
        if old is not None and old.platform != config.platform:
            raise invalid(
                f"Illegal to change a model's platform. For model {config.name} platform was {old.platform} "
                f"and new platform requested is {config.platform}"
            )


class Labels(Enum):
    """Where a label may point."""

    LOADED = "at a version that answers"
    NEW = "a new label may point at a version that is not there yet"
    ANY = "a label that moves may, too"


def check_labels(config: ModelConfig, old: Mapping[str, int], available: frozenset[int], rule: Labels) -> None:
    """`old`: where the labels point now. Raises FAILED_PRECONDITION."""
    for label, version in config.labels.items():
        allowed = version in available or rule is Labels.ANY or (rule is Labels.NEW and old.get(label, version) == version)
        if not allowed:
            raise ServeError(
                FAILED_PRECONDITION,
                f"Request to assign label to version {version} of model {config.name}, which is not currently available for inference",
            )
