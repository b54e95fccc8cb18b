"""What it takes to serve a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainyard._errors import UserErrorException

if TYPE_CHECKING:
    from trainyard.model.v1.model_pb2 import Requirements

_MOST = 1 << 30
"""Of cores, GiB or GPUs; the wire has room for so many bytes."""


@dataclass(frozen=True)
class ResourceConfiguration:
    """What it takes to serve a model: cpu in cores, memory_in_gb in GiB, gpu in devices; None = no wish."""

    cpu: float | None = None
    memory_in_gb: float | None = None
    gpu: int | None = None

    def __post_init__(self) -> None:
        """Raises UserErrorException."""
        for option, kinds in (("cpu", (int, float)), ("memory_in_gb", (int, float)), ("gpu", (int,))):
            value = getattr(self, option)
            if value is not None and not (isinstance(value, kinds) and 0 <= value < _MOST):
                what = "whole number" if kinds == (int,) else "number"
                raise UserErrorException(f"{option} is a {what} from 0, not {value!r}.", target=option)

    def _to_message(self) -> Requirements:
        from trainyard.model.v1.model_pb2 import Requirements

        return Requirements(cpus=self.cpu or 0.0, memory_bytes=int((self.memory_in_gb or 0) * 2**30), gpus=self.gpu or 0)

    def serialize(self) -> dict[str, float | int | None]:
        """Azure's shape: {"cpu", "memoryInGB", "gpu"}."""
        return {"cpu": self.cpu, "memoryInGB": self.memory_in_gb, "gpu": self.gpu}
