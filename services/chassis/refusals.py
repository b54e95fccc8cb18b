"""Why a request that somebody waits for became a dead letter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Refusal:
    reason: str
    is_the_messages_fault: bool
    """False: the service failed on it."""


class Refusals:
    """By event id, and only while somebody waits: what strangers publish takes no room here."""

    def __init__(self) -> None:
        self._found: dict[str, Refusal | None] = {}

    @contextmanager
    def awaited(self, event_id: str) -> Iterator[Callable[[], Refusal | None]]:
        """Gives a function that says what has become of the event so far."""
        self._found[event_id] = None
        try:
            yield lambda: self._found[event_id]
        finally:
            del self._found[event_id]

    def tell(self, event_id: str, refusal: Refusal) -> None:
        if event_id in self._found:
            self._found[event_id] = refusal
