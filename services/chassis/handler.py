"""What a service gives the chassis: how events change what it knows, and what it answers. Both are free of Kafka."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from google.protobuf.message import Message

from services.chassis.store import Documents
from trainyard._cloudevents import Received


class InvalidMessage(Exception):
    """The message is well-formed and still cannot be taken; it goes to the dead letters with this reason."""


@dataclass(frozen=True)
class Emit:
    """An event that follows: where it goes and what it says."""

    topic: str
    key: str
    message: Message
    correlation_id: str = ""


@dataclass(frozen=True)
class Command:
    """Something that a service tells itself: a worker's result, a timer. Never on the log; the facts that follow are."""

    payload: Any
    cause_id: str = ""
    correlation_id: str = ""
    recurs: bool = False
    """The cause leads to such facts again and again: their ids are new each time, where an answer's are derived from its cause."""


class Handler(Protocol):
    """One service's rules over its documents.

    `react` answers an input with the events that follow, and changes nothing; `apply` folds any event, its own answers
    included, into the documents. State therefore is always a fold of events, and a new database is filled by replay.
    """

    @property
    def answers(self) -> Collection[type[Message]]:
        """Inputs that `react` may answer with events. Replay does not answer them again where the log has the answer."""
        ...

    def apply(self, event: Received, documents: Documents) -> None: ...

    def react(self, event: Received, documents: Documents) -> Iterable[Emit]:
        """Raises InvalidMessage."""
        ...

    def command(self, command: Command, documents: Documents) -> Iterable[Emit]: ...

    def reset(self, documents: Documents) -> None:
        """Forget what is kept in memory: the documents are the truth (at start, and after a transaction that failed)."""
        ...


@runtime_checkable
class Counting(Protocol):
    """A handler that counts in `react`, in memory alone, what ephemeral topics bring: `reset` has no documents to tell it from."""

    def snapshot(self) -> Callable[[], None]:
        """Returns what puts the counts back as they are now; called once at the most."""
        ...
