"""Which events took effect lately, so that none of them does twice: by digest, in memory, and row by row in the order of commits.

Bounded by how much was taken since and never by a clock: while a log is away nothing is taken, so whoever could not say whether his
record was taken finds it remembered when he sends it again, however long that was. What is forgotten is as old as half a million
events; publishers give up, or have been given up, long before.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable

MOST = 500_000
_BYTES = 16
# Beyond the bound, in parts of it, before any are dropped: seldom many, instead of a few with every commit.
_SLACK = 16


def digest_of(event_id: str) -> bytes:
    """Of one length, whatever a stranger calls his events."""
    return hashlib.blake2b(event_id.encode("utf-8", "surrogatepass"), digest_size=_BYTES).digest()


class Seen:
    """`most` is how many are remembered at least; a sixteenth more at the most."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._digests: set[bytes] = set()
        self._rows: deque[tuple[int, bytes]] = deque()

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._digests

    def __len__(self) -> int:
        return len(self._digests)

    @property
    def last(self) -> int:
        """Number of the newest row; 0: there is none."""
        return self._rows[-1][0] if self._rows else 0

    def add(self, row: int, digests: bytes) -> None:
        """What one transaction has committed, one after the other; its row's number is above all others."""
        self._rows.append((row, digests))
        self._digests.update(_parts(digests))

    def drop(self) -> int:
        """Forgets the oldest, if there are too many. Number of the newest row that is not needed any more; 0: none was dropped."""
        if len(self._digests) <= self._most + self._most // _SLACK:
            return 0
        dropped = 0
        # The newest stays, whatever its size: numbers go on from it.
        while len(self._rows) > 1 and len(self._digests) - len(self._rows[0][1]) // _BYTES >= self._most:
            dropped, digests = self._rows.popleft()
            self._digests.difference_update(_parts(digests))
        return dropped

    def clear(self) -> None:
        self._digests.clear()
        self._rows.clear()


def _parts(digests: bytes) -> Iterable[bytes]:
    return (digests[at : at + _BYTES] for at in range(0, len(digests), _BYTES))
