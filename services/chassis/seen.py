"""Which events took effect lately, so that none of them does twice: by digest, in memory, and row by row in the order of commits.

Bounded by how much was taken since and never by a clock: while a log is away nothing is taken, so whoever could not say whether his
record was taken finds it remembered when he sends it again, however long that was. What is forgotten is as old as half a million
events; publishers give up, or have been given up, long before. The service's own events are no one's to give up: see `drop`.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable
from itertools import islice

MOST = 500_000
DIGEST_BYTES = 16
# Beyond the bound, in parts of it, before any are dropped: seldom many, instead of a few with every commit.
_SLACK = 16


def digest_of(event_id: str) -> bytes:
    """Of one length, whatever a stranger calls his events."""
    return hashlib.blake2b(event_id.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()


class Seen:
    """`most` is how many are remembered at least; a sixteenth more at the most, and what is held back from being dropped."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._digests: dict[bytes, None] = {}
        """In the order in which they came."""
        self._rows: deque[int] = deque()
        """How many each row has, of rows whose numbers follow each other up to `last`: a row has few, and there are many rows."""
        self.last = 0
        """Number of the newest row; 0: there was none."""
        self._full = most + most // _SLACK + 1
        """With so many it is time to drop some."""

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._digests

    def __len__(self) -> int:
        return len(self._digests)

    def add(self, row: int, digests: Iterable[bytes]) -> None:
        """What one transaction has committed, one after the other; a number that was left out counts as an empty row."""
        self._rows.extend([0] * (row - self.last - 1 if self._rows else 0))
        before = len(self._digests)
        self._digests.update(dict.fromkeys(digests))
        self._rows.append(len(self._digests) - before)
        self.last = row

    def drop(self, held: int | None = None) -> int:
        """Forgets the oldest, if there are too many. Number of the newest row that is not needed any more; 0: none was dropped.

        `held` is the first row that must stay, however many there are: the service's own events, as long as they have not come back
        by the log. Forgotten they would be taken again as new, the older over the newer.
        """
        if len(self._digests) < self._full:
            return 0
        first, rows, left = self.last - len(self._rows) + 1, 0, len(self._digests)
        # The newest stays, whatever its size.
        for count in islice(self._rows, len(self._rows) - 1):
            if left - count < self._most or (held is not None and first + rows >= held):
                break
            left -= count
            rows += 1
        for digest in list(islice(self._digests, len(self._digests) - left)):
            del self._digests[digest]
        for _ in range(rows):
            self._rows.popleft()
        # What is held back now is not looked at with every commit.
        self._full = max(self._most, left) + self._most // _SLACK + 1
        return self.last - len(self._rows) if rows else 0

    def clear(self) -> None:
        self._digests.clear()
        self._rows.clear()
        self.last = 0
        self._full = self._most + self._most // _SLACK + 1


def parts(digests: bytes) -> Iterable[bytes]:
    """Each digest of a row."""
    return (digests[at : at + DIGEST_BYTES] for at in range(0, len(digests), DIGEST_BYTES))
