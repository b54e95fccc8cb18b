"""What the registry has read in a version's files, before it is registered."""

from __future__ import annotations

from dataclasses import dataclass

from trainyard.model.v1.model_pb2 import Signature


@dataclass(frozen=True)
class Reading:
    """Of a SavedModel: its signatures, its graphs' tags, and those of its operations that read or write files or run Python."""

    signatures: tuple[Signature, ...] = ()
    tag_sets: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
