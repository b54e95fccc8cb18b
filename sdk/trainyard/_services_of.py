"""What a caller gave to find a thing by: a workspace or an experiment, then a name. Standard library only."""

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


def checked_experiment(experiment: Any) -> Any:
    """The experiment as it came. Raises UserErrorException for a run's id, a workspace or nothing in its place."""
    if not (hasattr(experiment, "name") and hasattr(experiment, "workspace")):
        raise UserErrorException(
            f"An experiment belongs here, not {experiment!r}.",
            target="experiment",
            hint="write Run(experiment, run_id), or Run.get(workspace, run_id) where the experiment is not known",
        )
    return experiment


def checked_datastore(datastore: Any) -> Any:
    """The datastore as it came. Raises UserErrorException for its name or nothing in its place."""
    if not hasattr(datastore, "stored"):
        raise UserErrorException(
            f"A datastore belongs here, not {datastore!r}.",
            target="datastore",
            hint="write Datastore.get(workspace, name), or workspace.get_default_datastore()",
        )
    return datastore


def checked_name(what: str, name: Any) -> str:
    """The name as it came. Raises UserErrorException for what is no text; whether there is such a thing its service knows."""
    if not isinstance(name, str):
        raise UserErrorException(
            f"{what} is a text, not {name!r}.", target=what, hint="give the workspace or experiment first, then the name"
        )
    return name
