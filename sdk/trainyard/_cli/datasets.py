"""`trainyard dataset`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from trainyard import _file_lists
from trainyard._cli import completion
from trainyard._cli.common import All, Config, Json, Limit, Since, TagFilter, Token, has_tags, moment, new_group, page_of, pairs, workspace
from trainyard._cli.output import iso, one, rows

group = new_group("File datasets: named, versioned lists of files whose bytes stay where they are.")
Name = Annotated[str, typer.Argument(help="the dataset's name", autocompletion=completion.datasets)]
Version = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="its version; 0 = the latest")]


@group.command("register")
def dataset_register(
    name: Annotated[str, typer.Argument(help="the name to register under")],
    sources: Annotated[
        list[str],
        typer.Argument(help="http(s) URLs, datastore://STORE/PATH with * ? ** in it, or local files and folders, which are uploaded"),
    ],
    description: Annotated[str, typer.Option(help="free text")] = "",
    tag: Annotated[list[str] | None, typer.Option(help="NAME=VALUE; may be repeated")] = None,
    new_version: Annotated[bool, typer.Option("--new-version", help="add a version under a name that is there")] = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Record size, ETag and SHA-256 of every file under a name; nothing is copied but local files."""
    from trainyard._dataset_factory import made_of

    space = workspace(config)
    made = made_of(sources, space).register(
        space, name, description=description, tags=pairs(tag, "--tag", bare=True), create_new_version=new_version
    )
    one(_shown(made._message, files=False), as_json=as_json)


@group.command("list")
def dataset_list(
    text: Annotated[str, typer.Option(help="only with this text in the name")] = "",
    tag: TagFilter = None,
    since: Since = "",
    limit: Limit = 100,
    page_token: Token = "",
    everything: All = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """The latest version of each, by name."""
    from trainyard.dataset.v1 import dataset_pb2

    clients = workspace(config)._clients
    answers = clients.pages(clients.datasets.ListDatasets, dataset_pb2.ListDatasetsRequest())
    found = [it for answer in answers for it in answer.datasets]
    wanted, earliest = pairs(tag, "--tag", bare=True), moment(since, "--since").timestamp() if since else 0.0
    kept = [
        it for it in found if text.lower() in it.name.lower() and has_tags(it.tags, wanted) and it.registered_at.seconds >= earliest - 1
    ]
    page = page_of(kept, lambda it: str(it.name), limit=limit, token=page_token, everything=everything)
    rows((_shown(it, files=False) for it in page), ("name", "version", "files", "bytes", "registeredAt", "description"), as_json=as_json)


@group.command("show")
def dataset_show(name: Name, version: Version = 0, as_json: Json = False, config: Config = None) -> None:
    """A version with its files."""
    from trainyard.dataset.v1 import dataset_pb2

    space = workspace(config)
    clients = space._clients
    found = clients.call(clients.datasets.GetDataset, dataset_pb2.GetDatasetRequest(name=name, version=version)).dataset
    if found.manifest_key:
        found.files.extend(_file_lists.of(space._objects, found))
    one(_shown(found, files=True), as_json=as_json)


@group.command("download")
def dataset_download(
    name: Name,
    output: Annotated[Path, typer.Option("--output", "-o", help="folder to write to")] = Path(),
    version: Version = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="write over files that are there")] = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Its files, checked against what was registered."""
    from trainyard._dataset import Dataset

    found: Any = Dataset.get_by_name(workspace(config), name, version or "latest")
    paths = found.download(target_path=str(output), overwrite=overwrite)
    one({"dataset": found.id, "files": len(paths), "folder": str(output)}, as_json=as_json)


def _shown(found: Any, *, files: bool) -> dict[str, Any]:
    from google.protobuf.json_format import MessageToDict

    listed = [{"path": it.path, "bytes": int(it.size_bytes), "sha256": it.sha256, "url": it.url} for it in found.files]
    steps = {"steps": [MessageToDict(it) for it in found.steps]} if files and found.steps else {}
    return {
        "name": found.name,
        "version": int(found.version),
        "description": found.description,
        "tags": dict(found.tags),
        "files": listed if files else int(found.count) or len(listed),
        "bytes": int(found.total_bytes) or sum(it.size_bytes for it in found.files),
        "registeredAt": iso(found.registered_at),
        **steps,
    }
