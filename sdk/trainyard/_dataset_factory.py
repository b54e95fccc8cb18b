"""`Dataset.File`: datasets of whole files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainyard import _stored_sources
from trainyard._errors import UserErrorException

if TYPE_CHECKING:
    from trainyard._datapath import DataPath
    from trainyard._dataset import FileDataset
    from trainyard._workspace import Workspace


def made_of(path: Any, workspace: Workspace | None = None, *, validate: bool = True) -> FileDataset:
    """As FileDatasetFactory.from_files; `workspace`: where its stores are, whatever config.json says."""
    from trainyard._dataset import FileDataset
    from trainyard._dataset_sources import Sources

    found = Sources.of(path, workspace)
    made = FileDataset(found.urls, workspace=found.workspace)
    if validate and any(map(_stored_sources.is_stored, found.urls)):
        made._sources()
    return made


class FileDatasetFactory:
    """Makes datasets of whole files."""

    @staticmethod
    def from_files(path: Any, validate: bool = True, partition_format: str | None = None, is_file: bool = False) -> FileDataset:
        """From http(s) URLs, `(datastore, 'path/**')`, DataPath, local files, folders and globs, or a list of them.

        Lazy for URLs: they are looked at when the dataset is registered or run with. Paths in a datastore are looked at here if `validate`.
        Local files are uploaded to the default datastore, under a folder named by their content.
        """
        if partition_format is not None:
            raise UserErrorException("partition_format has no use for files.", target="partition_format", hint="leave it out")
        return made_of(path, validate=validate)

    @staticmethod
    def upload_directory(
        src_dir: str | Path,
        target: DataPath | tuple[Any, str],
        pattern: str | None = None,
        overwrite: bool = False,
        show_progress: bool = True,
    ) -> FileDataset:
        """Uploads a folder's files (`pattern`: a glob over them) to a place in a datastore and makes a dataset of that place."""
        from trainyard._dataset import FileDataset
        from trainyard._dataset_sources import upload_directory

        found = upload_directory(Path(src_dir), target, pattern, overwrite=overwrite, show_progress=show_progress)
        return FileDataset(found.urls, workspace=found.workspace)
