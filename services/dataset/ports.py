"""What the dataset service needs of the world outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from trainyard._http_source import Unreachable
from trainyard.dataset.v1.dataset_pb2 import SourceFile

Progress = Callable[[int, int], None]
"""Told after each file that was read: how many have been, and their bytes together."""


class Sources(Protocol):
    """Files somewhere else, read through once and not kept."""

    async def read(self, urls: Sequence[str], progress: Progress) -> list[SourceFile]:
        """The files at these sources, with their paths, sizes, ETags and SHA-256 digests, in the order asked. Raises Unreachable."""
        ...


__all__ = ["Progress", "Sources", "Unreachable"]
