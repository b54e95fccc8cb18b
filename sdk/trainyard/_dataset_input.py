"""A dataset as a script's input."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from trainyard import _file_lists
from trainyard._errors import UserErrorException
from trainyard._lineage import runs_of

if TYPE_CHECKING:
    from trainyard._dataset import FileDataset
    from trainyard.job.v1.spec_pb2 import DatasetInput

_INPUT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def named_input(name: str, dataset: FileDataset) -> DatasetConsumptionConfig:
    """Raises UserErrorException for a name that cannot be a variable's."""
    if not isinstance(name, str) or not _INPUT_NAME.match(name):
        raise UserErrorException(f"An input's name is a letter or _, then letters, digits and _: {name!r} is not.", target=name)
    return DatasetConsumptionConfig(name, dataset)


@dataclass(frozen=True)
class DatasetConsumptionConfig:
    """A dataset as a script's input; stands in its arguments for the path on the node: the folder, or the file of a one-file dataset.

    `mode`: 'mount' (read-only), 'download' (a copy) or 'direct' (nothing is fetched; the path is a JSON file with the definition).
    """

    name: str
    dataset: FileDataset
    mode: str = "mount"
    path_on_compute: str | None = None
    always_folder: bool = False

    def __post_init__(self) -> None:
        if self.mode not in ("mount", "download", "direct"):
            raise UserErrorException(f"mode is one of mount, download, direct, not {self.mode!r}.", target="mode")
        path = self.path_on_compute
        if path is not None and (not path or "\0" in path or ".." in path.split("/")):
            what = f"path_on_compute {path!r} is no path: absolute, or below the script's folder, without '..'."
            raise UserErrorException(what, target="path_on_compute")

    def as_mount(self, path_on_compute: str | None = None) -> DatasetConsumptionConfig:
        """The same input, read-only on the node; `path_on_compute` is where it appears."""
        return replace(self, mode="mount", path_on_compute=path_on_compute)

    def as_download(self, path_on_compute: str | None = None) -> DatasetConsumptionConfig:
        """The same input, as a copy that the script may write to."""
        return replace(self, mode="download", path_on_compute=path_on_compute)

    def as_hdfs(self) -> DatasetConsumptionConfig:
        """Raises UserErrorException: there is no HDFS here."""
        raise UserErrorException(
            "A dataset cannot be given by HDFS: a node reads files.", target="as_hdfs", hint="use as_mount() or as_download()"
        )

    def _to_message(self) -> DatasetInput:
        from trainyard.job.v1.spec_pb2 import DatasetInput

        dataset = self.dataset
        origin = dataset._message
        # Looked at before it is sent: a condition that cannot be judged must not fail on the node. A version has files.
        if not dataset._is_registered and not dataset._files():
            raise UserErrorException(f"The input {self.name!r} has no file.", target=self.name)
        made = DatasetInput(
            name=self.name,
            dataset=origin.name if origin is not None else "",
            version=origin.version if origin is not None else 0,
            mode=_mode(self.mode),
            steps=dataset._all_steps(),
            path_on_compute=self.path_on_compute or "",
            always_folder=self.always_folder,
        )
        if origin is not None and origin.manifest_key:
            made.manifest_key, made.manifest_sha256 = origin.manifest_key, origin.manifest_sha256
            return made
        made.files.extend(dataset._sources())
        if made.ByteSize() > _file_lists.MOST_BYTES_IN_MESSAGE:
            made.manifest_key, made.manifest_sha256, _ = _file_lists.put(dataset._require_workspace()._objects, made.files)
            made.run_ids.extend(sorted(runs_of(made.files)))
            made.ClearField("files")
        return made


def _mode(name: str) -> Any:
    from trainyard.job.v1.spec_pb2 import DatasetInput

    return DatasetInput.Mode.Value(f"MODE_{name.upper()}")
