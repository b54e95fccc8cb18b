"""Datastores: named places for files in the platform's object store."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainyard import _datastore_files as files_of
from trainyard import _transfer
from trainyard._datapath import DataPath, DataReference
from trainyard._datastore_files import StoredFile
from trainyard._errors import UserErrorException
from trainyard._meter import Meter
from trainyard._objects import ObjectMissing
from trainyard._paths import below, sha256_file
from trainyard._services_of import checked_workspace

if TYPE_CHECKING:
    from trainyard._workspace import Workspace

DEFAULT = "workspaceblobstore"
RUNS = "workspaceartifactstore"
_FOLDER_OF_RUN = "ExperimentRun/dcid."
_ASKED_SINGLY = 64


class AbstractDatastore:
    """What every datastore has: a name, files by path, and references to them."""

    datastore_type = "TrainyardObjects"

    def __init__(self, workspace: Workspace, name: str) -> None:
        self.workspace: Workspace = checked_workspace(workspace)
        self.name = name

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r})"

    @property
    def account_name(self) -> str:
        """The object store's address."""
        return str(self.workspace._stack["object_store"]["endpoint"])

    @property
    def container_name(self) -> str:
        """Where its files lie in the bucket."""
        return f"{self.workspace._stack['object_store']['bucket']}/datastores/files/{self.name}"

    def path(self, path: str | None = None, data_reference_name: str | None = None) -> DataReference:
        """A reference to a file or folder, for a run's arguments. Raises UserErrorException for ".." and absolute paths."""
        return DataReference(self, data_reference_name=data_reference_name, path_on_datastore=path)

    def as_mount(self) -> DataReference:
        """The whole datastore as a read-only folder of the node."""
        return self.path().as_mount()

    def as_download(self, path_on_compute: str | None = None, overwrite: bool = False) -> DataReference:
        """The whole datastore, copied to the node."""
        return self.path().as_download(path_on_compute, overwrite)

    def as_upload(self, path_on_compute: str | None = None, overwrite: bool = False) -> DataReference:
        """Raises UserErrorException: what a run leaves behind is what it writes into ./outputs."""
        return self.path().as_upload(path_on_compute, overwrite)

    def stored(self, prefix: str = "") -> Iterator[StoredFile]:
        """Files whose path begins with `prefix`, with sizes in bytes and digests, sorted by path."""
        raise NotImplementedError

    def list_files(self, prefix: str = "") -> list[str]:
        """Paths that begin with `prefix`, sorted."""
        return [file.path for file in self.stored(prefix)]

    def download(self, target_path: str = ".", prefix: str | None = None, overwrite: bool = False, show_progress: bool = True) -> int:
        """Files below `prefix` (or the file of that path), with their whole paths below `target_path`; returns how many were written.

        Checked against their digests; what a broken download has left is gone on with. A file that is there stays unless `overwrite`.
        Raises UserErrorException where nothing lies below `prefix`.
        """
        found = _below_prefix(list(self.stored((prefix or "").removesuffix("/"))), prefix or "")
        if not found and prefix:
            raise UserErrorException(f"The datastore {self.name!r} has nothing at {prefix!r}.", target=prefix)
        wanted = [(file, below(Path(target_path), file.path)) for file in found]
        return _download(self.workspace, wanted, overwrite=overwrite, show_progress=show_progress)


class Datastore(AbstractDatastore):
    """`Datastore(workspace, name)` or `Datastore.get(workspace, name)`; the default one is 'workspaceblobstore'."""

    def __init__(self, workspace: Workspace, name: str | None = None) -> None:
        super().__init__(workspace, files_of.checked_name(name or DEFAULT))
        if name is not None and not _is_registered(workspace, self.name):
            there = ", ".join(sorted(Datastore._all(workspace)))
            raise UserErrorException(f"There is no datastore {name!r}; there is: {there}.", target=name)

    @staticmethod
    def get(workspace: Workspace, datastore_name: str) -> AbstractDatastore:
        """Raises UserErrorException, which names those there are."""
        return ArtifactStore(workspace) if datastore_name == RUNS else Datastore(workspace, datastore_name)

    @staticmethod
    def get_default(workspace: Workspace) -> Datastore:
        """The one that every workspace has, where local files of datasets go."""
        return Datastore(workspace)

    @staticmethod
    def register(workspace: Workspace, datastore_name: str, description: str = "") -> Datastore:
        """A named place of its own in the platform's store; one that is there stays as it is."""
        if files_of.checked_name(datastore_name) == RUNS:
            raise UserErrorException(f"{RUNS!r} is the platform's own.", target=datastore_name)
        if not _is_registered(workspace, datastore_name):
            _write_name(workspace, datastore_name, description, registered=True)
        return Datastore(workspace, datastore_name)

    @staticmethod
    def register_azure_blob_container(
        workspace: Workspace, datastore_name: str, container_name: str = "", account_name: str = "", **_: Any
    ) -> Datastore:
        """As `register`: the files lie in the platform's store. Azure's account, container and keys are not used."""
        return Datastore.register(workspace, datastore_name, f"{account_name}/{container_name}".strip("/"))

    @staticmethod
    def register_azure_file_share(
        workspace: Workspace, datastore_name: str, file_share_name: str = "", account_name: str = "", **_: Any
    ) -> Datastore:
        """As `register_azure_blob_container`."""
        return Datastore.register(workspace, datastore_name, f"{account_name}/{file_share_name}".strip("/"))

    def unregister(self) -> None:
        """Takes the name off the list; the files stay, and come back with the name. The default datastore cannot be unregistered."""
        if self.name == DEFAULT:
            raise UserErrorException(f"{DEFAULT!r} is the workspace's default datastore and stays.", target=self.name)
        _write_name(self.workspace, self.name, "", registered=False)

    @staticmethod
    def _all(workspace: Workspace) -> dict[str, AbstractDatastore]:
        """Name -> datastore."""
        objects = workspace._objects
        names = [key.rpartition("/")[2] for key in objects.list("datastores/names/")]
        there = _transfer.side_by_side(lambda name: _is_registered(workspace, name), names)
        found: dict[str, AbstractDatastore] = {DEFAULT: Datastore(workspace), RUNS: ArtifactStore(workspace)}
        for name in (name for name, is_there in zip(names, there, strict=True) if is_there):
            found[name] = Datastore(workspace, name)
        return found

    def stored(self, prefix: str = "") -> Iterator[StoredFile]:
        return files_of.list_files(self.workspace._objects, self.name, prefix)

    def upload(
        self, src_dir: str | os.PathLike[str], target_path: str | None = None, overwrite: bool = False, show_progress: bool = True
    ) -> DataReference:
        """All files below `src_dir`, under their paths below `target_path`; returns a reference to it.

        Contents that the store has are not sent again. Without `overwrite`, a path that is taken keeps what it has.
        Raises UserErrorException: no folder, or a name that a datastore does not take (checked before anything is sent).
        """
        folder = Path(src_dir)
        if not folder.is_dir():
            raise UserErrorException(f"src_dir {folder} does not exist or is no folder.", target=str(folder))
        found = sorted(path for path in folder.rglob("*") if path.is_file())
        self._put([(path, path.relative_to(folder).as_posix()) for path in found], target_path, overwrite, show_progress)
        return self.path(target_path)

    def upload_files(
        self,
        files: Sequence[str | os.PathLike[str]],
        relative_root: str | os.PathLike[str] | None = None,
        target_path: str | None = None,
        overwrite: bool = False,
        show_progress: bool = True,
    ) -> DataReference:
        """Single files, under their paths below `relative_root` (default: the folder that they have in common)."""
        paths = [Path(os.path.abspath(file)) for file in files]
        if not paths:
            raise UserErrorException("upload_files needs at least one file.", target="files")
        absent = [str(path) for path in paths if not path.is_file()]
        if absent:
            raise UserErrorException(f"There is no file {absent[0]}.", target=absent[0])
        root = Path(os.path.abspath(relative_root)) if relative_root else Path(os.path.commonpath([path.parent for path in paths]))
        outside = [str(path) for path in paths if root not in path.parents]
        if outside:
            raise UserErrorException(f"{outside[0]} does not lie below relative_root {root}.", target=outside[0])
        self._put([(path, path.relative_to(root).as_posix()) for path in paths], target_path, overwrite, show_progress)
        return self.path(target_path)

    def _put(self, files: Sequence[tuple[Path, str]], target: str | None, overwrite: bool, show_progress: bool) -> None:
        base = (target or "").strip("/")
        named = [(file, files_of.checked_path(f"{base}/{path}" if base else path)) for file, path in files]
        if not overwrite:
            taken = {file.path for file in self.stored(base)}
            named = [(file, path) for file, path in named if path not in taken]
        with Meter(f"uploading to {self.name}", sum(file.stat().st_size for file, _ in named), shown=show_progress) as meter:
            digests = _transfer.side_by_side(lambda item: sha256_file(item[0]), named)
            there = self._known(set(digests))

            def one(item: tuple[tuple[Path, str], str]) -> None:
                (file, path), digest = item
                size = file.stat().st_size
                if digest in there:
                    meter.add(size)
                else:
                    size = _transfer.send(self.workspace._objects, files_of.blob_key(digest), file, sha256=digest, told=meter.add).size
                # The mark comes last: what it names is there.
                self.workspace._objects.put_bytes(files_of.mark_key(self.name, path, size, digest), b"")

            _transfer.side_by_side(one, list(zip(named, digests, strict=True)))

    def _known(self, digests: set[str]) -> set[str]:
        objects = self.workspace._objects
        if len(digests) > _ASKED_SINGLY:
            return {entry.key.rpartition("/")[2] for entry in objects.entries(files_of.blob_key(""))} & digests
        wanted = sorted(digests)
        there = _transfer.side_by_side(lambda digest: objects.exists(files_of.blob_key(digest)), wanted)
        return {digest for digest, is_there in zip(wanted, there, strict=True) if is_there}


class ArtifactStore(AbstractDatastore):
    """What runs have left behind, as a datastore: 'ExperimentRun/dcid.<run>/outputs/...'. Only to be read."""

    datastore_type = "TrainyardRuns"

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(workspace, RUNS)

    @property
    def container_name(self) -> str:
        return f"{self.workspace._stack['object_store']['bucket']}/runs"

    def stored(self, prefix: str = "") -> Iterator[StoredFile]:
        """`prefix` must name a run."""
        run_id, _, rest = prefix.removeprefix(_FOLDER_OF_RUN).partition("/")
        if not prefix.startswith(_FOLDER_OF_RUN) or not run_id:
            what = f"A path in {RUNS} begins with '{_FOLDER_OF_RUN}<run id>/'; {prefix!r} does not."
            raise UserErrorException(what, target=prefix)
        for path, artifact in sorted(_files_of_run(self.workspace, run_id).items()):
            if path.startswith(rest):
                yield StoredFile(f"{_FOLDER_OF_RUN}{run_id}/{path}", artifact.size_bytes, artifact.sha256, artifact.object_key)


def outputs_of(workspace: Workspace, run_id: str) -> DataPath:
    """See Run._get_outputs_datapath."""
    return DataPath(ArtifactStore(workspace), f"{_FOLDER_OF_RUN}{run_id}/outputs", name=f"outputs_{run_id}")


def _files_of_run(workspace: Workspace, run_id: str) -> dict[str, Any]:
    from trainyard._artifacts import resolve
    from trainyard._errors import RunNotFoundException
    from trainyard.job.v1 import job_pb2

    clients = workspace._clients
    run = clients.call(clients.jobs.GetRun, job_pb2.GetRunRequest(run_id=run_id), RunNotFoundException).run
    return {file.path: file for file in resolve(workspace._objects, run.outputs).files}


def _download(workspace: Workspace, files: Sequence[tuple[StoredFile, Path]], *, overwrite: bool, show_progress: bool) -> int:
    wanted = [(file, target) for file, target in files if overwrite or not target.exists()]

    def one(item: tuple[StoredFile, Path]) -> None:
        file, target = item
        _transfer.receive(workspace._objects, file.object_key, target, size=file.size, sha256=file.sha256, told=meter.add)

    with Meter("downloading", sum(file.size for file, _ in wanted), shown=show_progress) as meter:
        _transfer.side_by_side(one, wanted)
    return len(wanted)


def _below_prefix(files: Sequence[StoredFile], prefix: str) -> list[StoredFile]:
    """'mnist' is the folder or the file, and never 'mnist2'."""
    whole = prefix.removesuffix("/")
    return [file for file in files if not whole or file.path == prefix or file.path.startswith(f"{whole}/")]


def _is_registered(workspace: Workspace, name: str) -> bool:
    if name in (DEFAULT, RUNS):
        return True
    try:
        return bool(json.loads(workspace._objects.get_bytes(files_of.name_key(name)))["registered"])
    except (ObjectMissing, ValueError, KeyError, TypeError):
        return False


def _write_name(workspace: Workspace, name: str, description: str, *, registered: bool) -> None:
    content = json.dumps({"registered": registered, "description": description[:3000]})
    workspace._objects.put_bytes(files_of.name_key(name), content.encode())
