"""File datasets: named, versioned lists of files whose bytes stay where they are."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trainyard import _file_lists, _steps, _stored_sources
from trainyard._conditions import Condition, FileMetadata
from trainyard._dataset_factory import FileDatasetFactory
from trainyard._dataset_input import DatasetConsumptionConfig, named_input
from trainyard._errors import UserErrorException
from trainyard._services_of import checked_name, clients_of
from trainyard._sources import mounted_path
from trainyard._texts import texts

if TYPE_CHECKING:
    from trainyard._dataset_files import MountContext
    from trainyard._workspace import Workspace

# A server may be slow to say what it holds, and every file is read once for its digest.
_REGISTER_SECONDS = 600.0
# More of them travel as a list of their own.
_MOST_URLS = 10_000


class FileDataset:
    """Files by URL or by their place in a datastore; registered once it has a name and a version.

    `take`, `skip`, `filter` and `random_split` give other datasets: what they do is recorded, kept with a version that is registered, and
    done again on the node.
    """

    def __init__(self, urls: Sequence[str], message: Any = None, *, workspace: Workspace | None = None, steps: Sequence[Any] = ()) -> None:
        # What is registered was checked by the service; one that is wrong all the same must not hide the others of a list.
        self._urls = [_checked(url) for url in urls] if message is None else list(urls)
        self._message = message
        self._workspace = workspace
        self._new_steps = list(steps)
        """Those that its registered version, if it has one, does not know."""
        self._listed: list[Any] | None = None
        """The files of its registered version, once they are needed: a long list has to be fetched."""

    @property
    def name(self) -> str | None:
        """None for one that was never registered under a name."""
        return self._message.name if self._is_registered else None

    @property
    def version(self) -> int | None:
        """Counts from 1 under each name; None for one that was never registered."""
        return int(self._message.version) if self._is_registered else None

    @property
    def id(self) -> str | None:
        """ "<name>:<version>", as Dataset.get_by_id takes it; None for one that was never registered."""
        return f"{self.name}:{self.version}" if self._is_registered else None

    @property
    def description(self) -> str:
        """As it was registered, else ""."""
        return self._message.description if self._is_registered else ""

    @property
    def tags(self) -> dict[str, str]:
        """A copy of those that were registered, else empty."""
        return dict(self._message.tags) if self._is_registered else {}

    @property
    def _is_registered(self) -> bool:
        return self._message is not None and not self._new_steps

    @property
    def steps(self) -> list[str]:
        """What was done to the list of files, in words, in order."""
        return [_steps.told(step) for step in self._all_steps()]

    def __repr__(self) -> str:
        steps = f", steps={self.steps}" if self._all_steps() else ""
        sources = int(self._message.count) if self._message is not None and self._message.manifest_key else len(self._urls)
        return f"FileDataset(name={self.name!r}, version={self.version}, sources={sources}{steps})"

    def register(
        self,
        workspace: Workspace,
        name: str,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
        create_new_version: bool = False,
    ) -> FileDataset:
        """Records size and SHA-256 of every file under a name; the files themselves are not copied.

        Raises UserErrorException: a name that is taken (without create_new_version), a source that cannot be read, a path with no file.
        """
        from trainyard.dataset.v1 import dataset_pb2

        request = dataset_pb2.RegisterDataset(
            submission_id=uuid.uuid4().hex,
            name=name,
            description=description or "",
            tags=texts("tags", tags),
            create_new_version=create_new_version,
            steps=self._new_steps,
        )
        if self._message is not None:
            # The files as that version has them, not as they may be now.
            request.based_on, request.based_on_version = self._message.name, self._message.version
        else:
            self._name_urls(request, workspace)
        clients = clients_of(workspace)
        answer = clients.call(clients.datasets.RegisterDataset, request, UserErrorException, timeout=_REGISTER_SECONDS)
        return _from_message(answer.dataset, workspace)

    def _name_urls(self, request: Any, workspace: Workspace) -> None:
        """In the request, or, where they are too many for an event, in an object of the store."""
        from trainyard.dataset.v1.dataset_pb2 import SourceFile

        request.urls.extend(self._urls)
        if len(self._urls) > _MOST_URLS or request.ByteSize() > _file_lists.MOST_BYTES_IN_MESSAGE:
            sources = (SourceFile(url=url) for url in self._urls)
            request.manifest_key, request.manifest_sha256, request.count = _file_lists.put(workspace._objects, sources)
            request.ClearField("urls")

    def unregister_all_versions(self) -> None:
        """Takes the name off the list. Runs that used it are not touched; the next version under the name counts on."""
        from trainyard.dataset.v1 import dataset_pb2

        if not self._is_registered or self._workspace is None:
            raise UserErrorException("This dataset is not registered.", target="dataset")
        clients = self._workspace._clients
        request = dataset_pb2.UnregisterDataset(submission_id=uuid.uuid4().hex, name=self._message.name)
        clients.call(clients.datasets.UnregisterDataset, request, UserErrorException)

    # -- the list of files

    def to_path(self) -> list[str]:
        """The files' paths below the folder that a run gets, each with a slash in front."""
        return [f"/{file.path}" for file in self._files()]

    def take(self, count: int) -> FileDataset:
        """The first `count` files."""
        return self._then(_steps.take(count))

    def skip(self, count: int) -> FileDataset:
        """All but the first `count` files."""
        return self._then(_steps.skip(count))

    @property
    def file_metadata(self) -> FileMetadata:
        """For conditions: `ds.filter(ds.file_metadata['Size'] > 1000)`; 'Size' is in bytes."""
        return FileMetadata()

    def filter(self, expression: Condition | str) -> FileDataset:
        """Files for which the condition holds; a text is a glob over paths, as in .gitignore."""
        if isinstance(expression, str):
            return self._then(_steps.filter(expression))
        if not isinstance(expression, Condition):
            what = f"filter takes a condition or a glob, not {expression!r}."
            raise UserErrorException(
                what, target="expression", hint="write ds.filter(ds.file_metadata['Size'] > 1000) or ds.filter('*.gz')"
            )
        return self._then(_steps.filter("", expression.at_least, expression.at_most))

    def random_split(self, percentage: float, seed: int | None = None) -> tuple[FileDataset, FileDataset]:
        """Two datasets: about that share of the files (0 < percentage < 1), and the rest. The same seed gives the same split, and files that
        are added later move no other file."""
        chosen = secrets.randbits(32) if seed is None else seed
        first, second = (_steps.split(percentage, chosen, second=second) for second in (False, True))
        return self._then(first), self._then(second)

    def _then(self, step: Any) -> FileDataset:
        steps = [*self._new_steps, step]
        if trouble := _steps.wrong([*self._all_steps(), step]):
            raise UserErrorException(f"The transformation cannot be applied: {trouble}.", target="steps")
        made = FileDataset(self._urls, self._message, workspace=self._workspace, steps=steps)
        made._listed = self._listed
        return made

    def _all_steps(self) -> list[Any]:
        return [*(self._message.steps if self._message is not None else ()), *self._new_steps]

    def _files(self) -> list[Any]:
        """SourceFiles after the steps."""
        sources = self._sources()
        if _steps.needs_sizes(self._all_steps()) and any(not file.sha256 for file in sources):
            what = "The sizes of files at http(s) URLs are known once the dataset is registered; a filter by size needs them."
            raise UserErrorException(what, target="filter", hint="register the dataset first, then filter it")
        return _steps.apply(sources, self._all_steps())

    def _sources(self) -> list[Any]:
        """SourceFiles before the steps."""
        from trainyard.dataset.v1.dataset_pb2 import SourceFile

        if self._message is not None:
            if not self._message.manifest_key:
                return list(self._message.files)
            if self._listed is None:
                self._listed = _file_lists.of(self._require_workspace()._objects, self._message)
            return self._listed
        found = [SourceFile(url=url, path=mounted_path(url)) for url in self._urls if not _stored_sources.is_stored(url)]
        stored = [url for url in self._urls if _stored_sources.is_stored(url)]
        return found + (_stored_sources.expand(stored, self._listing, SourceFile) if stored else [])

    def _listing(self, datastore: str, prefix: str) -> Any:
        from trainyard._datastore import Datastore

        return Datastore.get(self._require_workspace(), datastore).stored(prefix)

    def _require_workspace(self) -> Workspace:
        if self._workspace is None:
            from trainyard._workspace import Workspace

            self._workspace = Workspace.from_config()
        return self._workspace

    # -- the files themselves

    def download(self, target_path: str | None = None, overwrite: bool = False) -> list[str]:
        """Every file below `target_path` (default: a new folder for temporary files); returns their paths in the order of `to_path`.

        Checked against its digest where the dataset has one; what a broken download has left is gone on with. A file that is there is an
        error unless `overwrite`. Raises UserErrorException for that, and for a source that cannot be read or has changed.
        """
        from trainyard._dataset_files import download

        return download(self, target_path, overwrite=overwrite)

    def mount(self, mount_point: str | None = None, **_: Any) -> MountContext:
        """A context manager: inside it the files lie, read-only, below its `mount_point`; at its end they are gone."""
        from trainyard._dataset_files import MountContext

        return MountContext(self, mount_point)

    # -- as a run's input

    def as_named_input(self, name: str) -> DatasetConsumptionConfig:
        """An input of that name: an argument, the environment variables NAME and AZUREML_DATAREFERENCE_name, and a key of
        run.input_datasets."""
        return named_input(name, self)

    def as_mount(self, path_on_compute: str | None = None) -> DatasetConsumptionConfig:
        """An input named "input", read-only on the node; `path_on_compute` is where it appears."""
        return self.as_named_input("input").as_mount(path_on_compute)

    def as_download(self, path_on_compute: str | None = None) -> DatasetConsumptionConfig:
        """An input named "input", as a copy that the script may write to."""
        return self.as_named_input("input").as_download(path_on_compute)

    def as_hdfs(self) -> DatasetConsumptionConfig:
        """Raises UserErrorException: there is no HDFS here."""
        return self.as_named_input("input").as_hdfs()


def _checked(url: object) -> str:
    if not isinstance(url, str):
        raise UserErrorException(f"A dataset is made of URLs; {url!r} is a {type(url).__name__}.", target=repr(url))
    if _stored_sources.is_stored(url):
        _stored_sources.parse(url)
    else:
        mounted_path(url)
    return url


class Dataset:
    """Where datasets are made and found."""

    File = FileDatasetFactory

    @staticmethod
    def get_by_name(workspace: Workspace, name: str, version: int | str = "latest") -> FileDataset:
        """Raises UserErrorException, which names those there are."""
        clients = clients_of(workspace)
        from trainyard.dataset.v1 import dataset_pb2

        if version != "latest" and not str(version).isdecimal():
            raise UserErrorException(f"A dataset's version is 'latest' or a number from 1, not {version!r}.", target=repr(version))
        number = 0 if version == "latest" else int(version)
        answer = clients.call(
            clients.datasets.GetDataset, dataset_pb2.GetDatasetRequest(name=checked_name("name", name), version=number), UserErrorException
        )
        return _from_message(answer.dataset, workspace)

    @staticmethod
    def get_by_id(workspace: Workspace, id: str) -> FileDataset:  # noqa: A002
        """`id` is "<name>:<version>". Raises UserErrorException."""
        name, _, version = checked_name("id", id).rpartition(":")
        if not name or not version.isdecimal():
            raise UserErrorException(f"A dataset's id is '<name>:<version>'; {id!r} is none.", target=id)
        return Dataset.get_by_name(workspace, name, int(version))

    @staticmethod
    def get_all(workspace: Workspace) -> dict[str, FileDataset]:
        """Name -> latest version."""
        from trainyard.dataset.v1 import dataset_pb2

        clients = clients_of(workspace)
        answers = clients.pages(clients.datasets.ListDatasets, dataset_pb2.ListDatasetsRequest())
        return {message.name: _from_message(message, workspace) for answer in answers for message in answer.datasets}


def _from_message(message: Any, workspace: Workspace | None = None) -> FileDataset:
    return FileDataset([file.url for file in message.files], message, workspace=workspace)
