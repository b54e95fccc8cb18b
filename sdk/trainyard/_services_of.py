"""The platform's services, by the workspace that a caller gave. Standard library only."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from trainyard._errors import UserErrorException


def clients_of(workspace: Any) -> Any:
    """Its clients; before a function's imports, as a script has neither and is told so. Raises UserErrorException for what is no workspace."""
    return checked_workspace(workspace)._clients


def checked_workspace(workspace: Any) -> Any:
    """The workspace as it came. Raises UserErrorException for a name or nothing in its place."""
    if workspace is None or isinstance(workspace, str | int | dict | PurePath):
        raise UserErrorException(
            f"A workspace belongs here, not {workspace!r}.",
            target="workspace",
            hint="write ws = Workspace.from_config() and give ws first, then the name",
        )
    return workspace
