"""What the dataset service needs of the world outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from services.chassis.http_source import Unreachable
from trainyard.dataset.v1.dataset_pb2 import SourceFile

Progress = Callable[[int, int], None]
"""Told after each file that was read: how many have been, and their bytes together."""


class Sources(Protocol):
    """Files somewhere else, read through once and not kept."""

    async def read(self, urls: Sequence[str], progress: Progress) -> list[SourceFile]:
        """Size, ETag and SHA-256 of each, in the order asked; the paths stay empty. Raises Unreachable."""
        ...


__all__ = ["Progress", "Sources", "Unreachable"]
