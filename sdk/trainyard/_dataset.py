"""File datasets: lists of URLs whose bytes stay where they are."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from trainyard._errors import UserErrorException
from trainyard._sources import mounted_path
from trainyard._texts import texts

if TYPE_CHECKING:
    from trainyard._workspace import Workspace
    from trainyard.job.v1.spec_pb2 import DatasetInput

_INPUT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
# A server may be slow to say what it holds, and every file is read once for its digest.
_REGISTER_SECONDS = 600.0


def _checked(url: object) -> str:
    if not isinstance(url, str):
        raise UserErrorException(f"A dataset is made of http(s) URLs; {url!r} is a {type(url).__name__}.", target=repr(url))
    mounted_path(url)
    return url


class FileDataset:
    """Files by URL; registered once it has a name and a version."""

    def __init__(self, urls: Sequence[str], message: Any = None) -> None:
        # What is registered was checked by the service; one that is wrong all the same must not hide the others of a list.
        self._urls = [_checked(url) for url in urls] if message is None else list(urls)
        self._message = message

    @property
    def name(self) -> str | None:
        return self._message.name if self._message is not None else None

    @property
    def version(self) -> int | None:
        return int(self._message.version) if self._message is not None else None

    @property
    def id(self) -> str | None:
        return f"{self.name}:{self.version}" if self._message is not None else None

    @property
    def description(self) -> str:
        return self._message.description if self._message is not None else ""

    @property
    def tags(self) -> dict[str, str]:
        return dict(self._message.tags) if self._message is not None else {}

    def __repr__(self) -> str:
        return f"FileDataset(name={self.name!r}, version={self.version}, files={len(self._urls)})"

    def register(
        self,
        workspace: Workspace,
        name: str,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
        create_new_version: bool = False,
    ) -> FileDataset:
        """Records size, ETag and SHA-256 of every file under a name; the files themselves are not copied."""
        from trainyard.dataset.v1 import dataset_pb2

        request = dataset_pb2.RegisterDataset(
            submission_id=uuid.uuid4().hex,
            name=name,
            description=description or "",
            tags=texts("tags", tags),
            urls=self._urls,
            create_new_version=create_new_version,
        )
        clients = workspace._clients
        answer = clients.call(clients.datasets.RegisterDataset, request, UserErrorException, timeout=_REGISTER_SECONDS)
        return _from_message(answer.dataset)

    def to_path(self) -> list[str]:
        return [f"/{file.path}" for file in self._sources()]

    def as_named_input(self, name: str) -> DatasetConsumptionConfig:
        if not isinstance(name, str) or not _INPUT_NAME.match(name):
            raise UserErrorException(f"An input's name is a letter or _, then letters, digits and _: {name!r} is not.", target=name)
        return DatasetConsumptionConfig(name, self)

    def as_mount(self, path_on_compute: str | None = None) -> DatasetConsumptionConfig:
        return self.as_named_input("input").as_mount(path_on_compute)

    def as_download(self, path_on_compute: str | None = None) -> DatasetConsumptionConfig:
        return self.as_named_input("input").as_download(path_on_compute)

    def _sources(self) -> list[Any]:
        from trainyard.dataset.v1 import dataset_pb2

        if self._message is not None:
            return list(self._message.files)
        return [dataset_pb2.SourceFile(url=url, path=mounted_path(url)) for url in self._urls]


@dataclass(frozen=True)
class DatasetConsumptionConfig:
    """A dataset as a script's input; stands in its arguments for the path on the node."""

    name: str
    dataset: FileDataset
    mode: str = "mount"

    def as_mount(self, path_on_compute: str | None = None) -> DatasetConsumptionConfig:
        return self._as("mount", path_on_compute)

    def as_download(self, path_on_compute: str | None = None) -> DatasetConsumptionConfig:
        return self._as("download", path_on_compute)

    def _as(self, mode: str, path_on_compute: str | None) -> DatasetConsumptionConfig:
        if path_on_compute is not None:
            raise UserErrorException(
                "path_on_compute is not supported yet.", target=path_on_compute, hint="take the path from the script's argument"
            )
        return replace(self, mode=mode)

    def _to_message(self) -> DatasetInput:
        from trainyard.job.v1.spec_pb2 import DatasetInput

        mode = DatasetInput.MODE_DOWNLOAD if self.mode == "download" else DatasetInput.MODE_MOUNT
        dataset = self.dataset
        return DatasetInput(name=self.name, dataset=dataset.name or "", version=dataset.version or 0, mode=mode, files=dataset._sources())


class _FileDatasetFactory:
    @staticmethod
    def from_files(path: str | Sequence[str], validate: bool = True) -> FileDataset:
        """Lazy: the URLs are looked at when the dataset is registered or run with."""
        urls = list(path) if isinstance(path, Sequence) and not isinstance(path, str | bytes) else [path]
        if not urls:
            raise UserErrorException("A dataset needs at least one URL.", target="path")
        return FileDataset(urls)


class Dataset:
    File = _FileDatasetFactory

    @staticmethod
    def get_by_name(workspace: Workspace, name: str, version: int | str = "latest") -> FileDataset:
        from trainyard.dataset.v1 import dataset_pb2

        clients = workspace._clients
        if version != "latest" and not str(version).isdecimal():
            raise UserErrorException(f"A dataset's version is 'latest' or a number from 1, not {version!r}.", target=repr(version))
        number = 0 if version == "latest" else int(version)
        answer = clients.call(clients.datasets.GetDataset, dataset_pb2.GetDatasetRequest(name=name, version=number), UserErrorException)
        return _from_message(answer.dataset)

    @staticmethod
    def get_all(workspace: Workspace) -> dict[str, FileDataset]:
        from trainyard.dataset.v1 import dataset_pb2

        clients = workspace._clients
        answer = clients.call(clients.datasets.ListDatasets, dataset_pb2.ListDatasetsRequest())
        return {message.name: _from_message(message) for message in answer.datasets}


def _from_message(message: Any) -> FileDataset:
    return FileDataset([file.url for file in message.files], message)
