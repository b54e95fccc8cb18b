"""What there is, for a message that says what there is not."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches

# Likeness is worked out against so many names at most: it must never hold a service up.
_COMPARED = 1000


def close_to(wanted: str, known: Collection[str]) -> list[str]:
    """The few that look like it, the closest first."""
    return get_close_matches(wanted[:255], sorted(known)[:_COMPARED], n=5)


def told(first: Iterable[str], rest: Iterable[str], most: int = 20) -> str:
    """ "mnist, flowers, words and 3 more": the first ones as they come, then the rest by name; "none" where there is nothing."""
    names = list(dict.fromkeys([*first, *sorted(rest)]))
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) + more) or "none"
