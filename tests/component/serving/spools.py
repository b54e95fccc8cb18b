"""What servers have handed to the request log."""

from __future__ import annotations

from pathlib import Path

from services.serving.sampling import spool
from services.serving.sampling.call import Sample, parsed


def samples(folder: Path) -> list[Sample]:
    """All that lies there, in the order in which it was written; it is gone then."""
    found: list[Sample | None] = []
    for path in spool.closed(folder):
        with spool.taken(path) as data:
            found += list(parsed(data or b""))
    return [it for it in found if it is not None]
