"""`trainyard datastore`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from trainyard._cli.common import All, Config, Json, Limit, Token, new_group, page_of, workspace
from trainyard._cli.output import one, rows

group = new_group("Datastores: named places for files in the platform's object store.")
Store = Annotated[str, typer.Option("--store", help="the datastore; by default the workspace's own")]


@group.command("list")
def datastore_list(
    text: Annotated[str, typer.Option(help="only with this text in the name")] = "",
    limit: Limit = 100,
    page_token: Token = "",
    everything: All = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """All of them, by name."""
    space: Any = workspace(config)
    found = [
        {"name": name, "type": it.datastore_type, "account": it.account_name, "container": it.container_name}
        for name, it in sorted(space.datastores.items())
        if text.lower() in name.lower()
    ]
    page = page_of(found, lambda it: str(it["name"]), limit=limit, token=page_token, everything=everything)
    rows(page, ("name", "type", "account", "container"), as_json=as_json)


@group.command("upload")
def datastore_upload(
    source: Annotated[Path, typer.Argument(help="a folder")],
    target: Annotated[str, typer.Argument(help="path in the datastore", show_default=False)] = "",
    store: Store = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="write over files that are there")] = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """A folder's files."""
    datastore = _store(config, store)
    datastore.upload(src_dir=str(source), target_path=target or None, overwrite=overwrite, show_progress=not as_json)
    one({"datastore": datastore.name, "target": target, "source": str(source)}, as_json=as_json)


@group.command("download")
def datastore_download(
    prefix: Annotated[str, typer.Argument(help="a file, or all below this path", show_default=False)] = "",
    output: Annotated[Path, typer.Option("--output", "-o", help="folder to write to")] = Path(),
    store: Store = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="write over files that are there")] = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Files of a datastore."""
    datastore = _store(config, store)
    number = datastore.download(target_path=str(output), prefix=prefix or None, overwrite=overwrite, show_progress=not as_json)
    one({"datastore": datastore.name, "files": number, "folder": str(output)}, as_json=as_json)


@group.command("ls")
def datastore_ls(
    prefix: Annotated[str, typer.Argument(help="only below this path", show_default=False)] = "",
    store: Store = "",
    limit: Limit = 1000,
    page_token: Token = "",
    everything: All = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """The paths in a datastore."""
    found = sorted(str(path) for path in _store(config, store).list_files(prefix))
    page = page_of(found, str, limit=limit, token=page_token, everything=everything)
    rows(({"path": path} for path in page), ("path",), as_json=as_json)


def _store(config: str | None, name: str) -> Any:
    space: Any = workspace(config)
    if not name:
        return space.get_default_datastore()
    from importlib import import_module

    return import_module("trainyard._datastore").Datastore.get(space, name)
