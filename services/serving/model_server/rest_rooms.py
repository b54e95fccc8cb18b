"""Room for large bodies: so many at a time are in memory, and who comes later waits in a row."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.serving.model_server.rest_connection import Connection

LARGE_BODY, LARGE_BODIES = 1 << 20, 8


class Rooms:
    """The loop's alone."""

    def __init__(self) -> None:
        self._left = LARGE_BODIES
        self._waiting: dict[Connection, None] = {}

    @property
    def wanted(self) -> bool:
        """Somebody waits for one."""
        return bool(self._waiting)

    def enter(self, connection: Connection) -> bool:
        """Otherwise it is in the row for the next one that becomes free."""
        if self._left:
            self._left -= 1
            return True
        self._waiting[connection] = None
        return False

    def leave(self) -> None:
        self._left += 1

    def forget(self, connection: Connection) -> None:
        """It waits no longer."""
        self._waiting.pop(connection, None)

    def next(self) -> Connection | None:
        """One that waited and has its room now."""
        if not (self._left and self._waiting):
            return None
        self._left -= 1
        connection = next(iter(self._waiting))
        del self._waiting[connection]
        return connection
