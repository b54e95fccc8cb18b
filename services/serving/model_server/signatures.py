"""What a model takes and gives: signatures and their tensors. Without TensorFlow, so that whatever only reads them needs none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from services.serving.model_server.tensors import STRING, TYPES

DEFAULT_SIGNATURE = "serving_default"


@dataclass(frozen=True)
class Tensor:
    """One input or output of a signature, of a type that is served."""

    name: str  # in the graph
    dtype: int  # DataType number
    shape: tuple[int, ...] | None  # -1 = unknown; None = unknown rank

    @cached_property
    def array_dtype(self) -> Any:
        return np.dtype(TYPES[self.dtype].array)

    @property
    def type_name(self) -> str:
        return TYPES[self.dtype].name

    def zeros(self) -> Any:
        shape = tuple(1 if size < 0 else size for size in self.shape or ())
        return np.full(shape, b"" if self.dtype == STRING else 0, dtype=self.array_dtype)


@dataclass(frozen=True)
class Signature:
    name: str
    method: str
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
