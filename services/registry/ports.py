"""What the registry needs of the world outside; the object store is `trainyard._objects.Objects`."""

from __future__ import annotations

from typing import Protocol

from services.registry.domain.runs import Run


class Runs(Protocol):
    async def read(self, run_id: str, *, ended: bool) -> Run | None:
        """The run by all that the log says of it up to now; None for one that it does not name. Raises Unavailable.

        ended: only its end counts, so one that may be on its way is waited for, for a moment.
        """
        ...
