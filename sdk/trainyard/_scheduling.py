"""What a run takes, when its turn comes and what happens when it breaks off: options of this platform beside Azure's."""

from __future__ import annotations

import getpass
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trainyard._errors import TrainingException, UserErrorException
from trainyard._paths import safe_relpath

if TYPE_CHECKING:
    from trainyard._resource_configuration import ResourceConfiguration
    from trainyard.job.v1.spec_pb2 import RunSpec

_PRIORITY, _RESTARTS, _LABELS, _NAME = 1_000, 100, 20, 255


class Scheduling:
    """Options that estimators and ScriptRunConfig take as keywords and RunConfiguration has as attributes; None = not said."""

    def __init__(self) -> None:
        self.resources: ResourceConfiguration | None = None
        self.priority: int | None = None
        self.user: str | None = None
        self.max_restarts: int | None = None
        self.checkpoint_folder: str | None = None
        self.labels: Sequence[str] | Mapping[str, str] | None = None
        self.spread: bool | None = None

    def _take(self, **options: Any) -> None:
        """Those that are given. Raises TrainingException for one that is set to something else already."""
        for name, value in options.items():
            there = getattr(self, name)
            if value is not None and there is not None and there != value:
                raise TrainingException(
                    f"{name} is given in two places that differ: {there!r} and {value!r}.", target=name, hint="give it once"
                )
            if value is not None:
                setattr(self, name, value)

    def _schedule(self, spec: RunSpec) -> None:
        """Writes them down. Raises TrainingException."""
        from trainyard.job.v1 import spec_pb2

        if self.resources is not None:
            self._write_resources(spec)
        spec.priority = _whole("priority", self.priority, -_PRIORITY, _PRIORITY)
        spec.max_restarts = _whole("max_restarts", self.max_restarts, 0, _RESTARTS)
        spec.user = _user(self.user)
        if self.checkpoint_folder is not None:
            spec.checkpoint_folder = _folder(self.checkpoint_folder)
        spec.labels.extend(_labels(self.labels))
        if self.spread is not None:
            if not isinstance(self.spread, bool):
                raise TrainingException(f"spread is True or False, not {self.spread!r}.", target="spread")
            spec.spread = spec_pb2.SPREAD_SPREAD if self.spread else spec_pb2.SPREAD_PACK

    def _write_resources(self, spec: RunSpec) -> None:
        from trainyard import ResourceConfiguration

        wish = self.resources
        if not isinstance(wish, ResourceConfiguration):
            raise TrainingException(
                f"resources is a ResourceConfiguration, not {wish!r}.",
                target="resources",
                hint="write resources=ResourceConfiguration(cpu=2, memory_in_gb=4, gpu=1)",
            )
        if not (wish.cpu or wish.memory_in_gb or wish.gpu):
            raise TrainingException(
                "resources names nothing that the run would take of a node.",
                target="resources",
                hint="leave it out for the whole node, or write ResourceConfiguration(cpu=2)",
            )
        if spec.use_gpu and not wish.gpu:
            raise TrainingException(
                "use_gpu asks for GPUs, and resources names none.", target="resources", hint="write ResourceConfiguration(gpu=1)"
            )
        taken = wish._to_message()
        spec.resources.cpus, spec.resources.memory_bytes, spec.resources.gpus = taken.cpus, taken.memory_bytes, taken.gpus
        spec.use_gpu = spec.use_gpu or taken.gpus > 0


def login_name() -> str:
    """Of whoever submits; empty where the system knows none, as in a container with a bare user number."""
    try:
        return getpass.getuser()[:_NAME]
    except (KeyError, OSError, ImportError):
        return ""


def _whole(name: str, value: Any, least: int, most: int) -> int:
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise TrainingException(f"{name} must be a whole number from {least} to {most}; it is {value!r}.", target=name)
    return value


def _user(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or not value.strip() or len(value) > _NAME or not value.isprintable():
        raise TrainingException(f"user is a name of 1 to {_NAME} printable characters, not {str(value)[:300]!r}.", target="user")
    return value


def _folder(value: Any) -> str:
    try:
        return safe_relpath(str(value).removeprefix("./").rstrip("/")) if isinstance(value, str) else _refuse_folder(value)
    except UserErrorException as error:
        raise TrainingException(
            f"checkpoint_folder: {error.message}",
            target="checkpoint_folder",
            hint="name a folder below the script's, as outputs/checkpoints",
        ) from error


def _refuse_folder(value: Any) -> str:
    raise TrainingException(f"checkpoint_folder is a text, not {value!r}.", target="checkpoint_folder")


def _labels(value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, Mapping):
        value = [f"{name}={wanted}" for name, wanted in value.items()]
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TrainingException(
            f"labels is a list of texts, not {value!r}.", target="labels", hint="write labels=['ssd', 'gpu.name=NVIDIA H100']"
        )
    for label in value:
        if not isinstance(label, str) or not label.partition("=")[0].strip() or len(label) > _NAME or not label.isprintable():
            raise TrainingException(f"A label is 'name' or 'name=value', at most {_NAME} characters; {label!r} is none.", target="labels")
    if len(value) > _LABELS:
        raise TrainingException(f"{len(value)} labels are more than {_LABELS}.", target="labels")
    return list(value)
