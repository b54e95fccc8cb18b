"""What an attempt needs of the node, and how its failures are told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from trainyard.event.v1.artifact_pb2 import Failure


class PreparationFailed(Exception):
    """The run cannot start; carries why, for its submitter."""

    def __init__(self, code: str, message: str, target: str = "", last_lines: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.failure = Failure(code=code, message=message[:3000], target=target[:1000], last_lines=list(last_lines)[-20:])


class Ring(Protocol):
    """One node's part in a Horovod gang: its first node serves the rendezvous where the ranks find each other."""

    async def start(self, address: str, port: int, secret: str) -> None:
        """Serves it. Raises OSError."""
        ...

    def formed(self, gang: Any) -> None:
        """The GangFormed of every round, before its variables are asked for."""
        ...

    def variables(self, gang: Any, rank: int) -> Mapping[str, str]:
        """What a rank that starts now needs beside what all gangs have."""
        ...

    async def close(self) -> None: ...


class DataCache(Protocol):
    def files_of(self, item: Any, stopped: Callable[[], bool]) -> list[Any]:
        """The SourceFiles of a DatasetInput, before its steps. A store that is away is waited for until `stopped()`.

        Raises TrainyardException.
        """
        ...

    def lend(self, files: Sequence[tuple[Any, str]], folder: Path, stopped: Callable[[], bool]) -> bool:
        """Each SourceFile at its path below `folder`, fetched when it is opened. False, and nothing is there, where it should be placed
        instead: the cache can hold the files, the node cannot lend, or `stopped()`."""
        ...

    def place(
        self, files: Sequence[tuple[Any, Path]], *, writable: bool, say: Callable[[str], None], stopped: Callable[[], bool]
    ) -> list[Any]:
        """Each SourceFile at its target; returns them with the digests that were measured. `say` gets a line now and then while it takes
        long.

        Raises PreparationFailed, and soon after `stopped()` that or TrainyardException.
        """
        ...


class SnapshotCache(Protocol):
    def unpack(self, snapshot: Any, folder: Path, stopped: Callable[[], bool]) -> tuple[int, int]:
        """All files of a Snapshot below folder; returns how many there are, and how many were fetched. Raises PreparationFailed.

        A store that is away is waited for until `stopped()`; PlatformUnavailableException when that takes too long.
        """
        ...
