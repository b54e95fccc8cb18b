"""What a dataset may be made of, as URLs; local files go to the default datastore first."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainyard import _transfer
from trainyard._datapath import DataPath, DataReference
from trainyard._datastore import AbstractDatastore, Datastore
from trainyard._errors import UserErrorException
from trainyard._paths import sha256_file
from trainyard._stored_sources import SCHEME

if TYPE_CHECKING:
    from trainyard._workspace import Workspace

_KINDS = "http(s) URLs, (datastore, 'path'), DataPath, or local files and folders"


@dataclass(frozen=True)
class Sources:
    urls: list[str]
    workspace: Workspace | None

    @classmethod
    def of(cls, given: Any, workspace: Workspace | None = None) -> Sources:
        """`workspace`: where local files go and stores are looked for; without it the one of a datastore among them, or config.json's.

        Raises UserErrorException for what is none of the kinds, and for local paths with no file.
        """
        items = list(given) if isinstance(given, list) or (isinstance(given, Sequence) and not _is_one(given)) else [given]
        if not items:
            raise UserErrorException(f"A dataset needs at least one source: {_KINDS}.", target="path")
        urls: list[str] = []
        local: list[str] = []
        for item in items:
            if isinstance(item, str) and "://" in item:
                urls.append(item)
            elif isinstance(item, str | os.PathLike):
                local.append(os.fspath(item))
            else:
                datastore, url = _stored(item)
                workspace = datastore.workspace
                urls.append(url)
        if local:
            workspace = workspace or _a_workspace()
            urls += [_upload(workspace, path) for path in local]
        return cls(urls, workspace)


def upload_directory(folder: Path, target: Any, pattern: str | None, *, overwrite: bool, show_progress: bool) -> Sources:
    datastore, url = _stored(target)
    if not isinstance(datastore, Datastore):
        raise UserErrorException(f"{datastore!r} is only to be read.", target="target")
    if not folder.is_dir():
        raise UserErrorException(f"src_dir {folder} does not exist or is no folder.", target=str(folder))
    place = url.removeprefix(f"{SCHEME}{datastore.name}/").strip("/")
    found = [path for path in sorted(folder.glob(pattern or "**/*")) if path.is_file()]
    if not found:
        raise UserErrorException(f"{folder} has no file{f' that matches {pattern!r}' if pattern else ''}.", target=str(folder))
    datastore.upload_files(found, relative_root=folder, target_path=place, overwrite=overwrite, show_progress=show_progress)
    return Sources([f"{SCHEME}{datastore.name}/{place}/" if place else f"{SCHEME}{datastore.name}/"], datastore.workspace)


def _is_one(given: Any) -> bool:
    """A text, or a (datastore, path) pair rather than a tuple of sources."""
    return isinstance(given, str) or (isinstance(given, tuple) and len(given) == 2 and isinstance(given[0], AbstractDatastore))


def _stored(item: Any) -> tuple[AbstractDatastore, str]:
    match item:
        case (AbstractDatastore() as datastore, str() as path):
            return datastore, f"{SCHEME}{datastore.name}/{path.removeprefix('./')}"
        case DataPath():
            datastore = item._there()
            return datastore, f"{SCHEME}{datastore.name}/{item.path_on_datastore}"
        case DataReference():
            return item.datastore, f"{SCHEME}{item.datastore.name}/{item.path_on_datastore}"
    raise UserErrorException(f"{item!r} is no source of a dataset; sources are: {_KINDS}.", target=repr(item)[:300])


def _upload(workspace: Workspace, path: str) -> str:
    """Under a folder named by what is in it: the same files are uploaded once, whatever they are made datasets of."""
    files = sorted(_local(path))
    if not files:
        raise UserErrorException(f"There is no file at {path!r}.", target=path, hint="give a file, a folder or a glob")
    digests = _transfer.side_by_side(lambda item: sha256_file(item[1]), files)
    lines = "".join(f"{name}\0{digest}\n" for (name, _), digest in zip(files, digests, strict=True))
    place = f"managed-dataset/{hashlib.sha256(lines.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}"
    datastore = Datastore.get_default(workspace)
    datastore._put([(file, name) for name, file in files], place, overwrite=False, show_progress=True)
    if len(files) == 1 and os.path.isfile(path):
        return f"{SCHEME}{datastore.name}/{place}/{files[0][0]}"
    return f"{SCHEME}{datastore.name}/{place}/"


def _local(path: str) -> Iterator[tuple[str, Path]]:
    """(path below what was named, the file)"""
    given = Path(path)
    if given.is_file():
        yield given.name, given
    elif given.is_dir():
        for file in given.rglob("*"):
            if file.is_file():
                yield file.relative_to(given).as_posix(), file
    else:
        head = re.split(r"[*?\[]", path, maxsplit=1)[0]
        base = head[: head.rfind("/") + 1] or "."
        for name in glob.glob(path, recursive=True):
            if os.path.isfile(name):
                yield Path(os.path.relpath(name, base)).as_posix(), Path(name)


def _a_workspace() -> Workspace:
    from trainyard._workspace import Workspace

    return Workspace.from_config()
