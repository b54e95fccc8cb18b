"""What there is, for a message that says what there is not."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches

# Likeness costs the product of two lengths; so much is worked out at most: it must never hold a service up.
_WORK = 4_000_000


def close_to(wanted: str, known: Collection[str]) -> list[str]:
    """The few that look like it, the closest first."""
    wanted, left = wanted[:255], _WORK
    compared = []
    for name in sorted(known):
        left -= (len(wanted) + 1) * (len(name) + 1)
        if left < 0:
            break
        compared.append(name)
    return get_close_matches(wanted, compared, n=5)


def told(first: Iterable[str], rest: Iterable[str], most: int = 20) -> str:
    """ "mnist, flowers, words and 3 more": the first ones as they come, then the rest by name; "none" where there is nothing."""
    names = list(dict.fromkeys([*first, *sorted(rest)]))
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) + more) or "none"
