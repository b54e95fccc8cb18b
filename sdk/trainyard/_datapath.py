"""Places in datastores as a run's inputs: DataPath, DataReference and how they are bound to a node."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from trainyard._errors import UserErrorException
from trainyard._paths import safe_relpath
from trainyard._services_of import checked_datastore

if TYPE_CHECKING:
    from trainyard._dataset_input import DatasetConsumptionConfig
    from trainyard._datastore import AbstractDatastore

_MODES = ("mount", "download")
_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9_]")
_UPLOAD_HINT = "write into ./outputs and read it back with run._get_outputs_datapath() or run.download_files"


class DataPathComputeBinding:
    """How a DataPath reaches the node: `mode` 'mount' (read-only) or 'download' (a copy)."""

    def __init__(self, mode: str = "mount", path_on_compute: str | None = None, overwrite: bool | None = False) -> None:
        self.mode = _checked_mode(mode)
        self.path_on_compute = path_on_compute
        self.overwrite = bool(overwrite)


class DataPath:
    """A file or folder of a datastore."""

    def __init__(self, datastore: AbstractDatastore | None = None, path_on_datastore: str | None = None, name: str | None = None) -> None:
        self._datastore: AbstractDatastore | None = None if datastore is None else checked_datastore(datastore)
        self.path_on_datastore = _checked_path(path_on_datastore)
        self._name = name

    def __repr__(self) -> str:
        return f"DataPath(datastore={self.datastore_name!r}, path_on_datastore={self.path_on_datastore!r})"

    @property
    def datastore_name(self) -> str | None:
        """None where no place was bound yet."""
        return self._datastore.name if self._datastore is not None else None

    def create_data_reference(
        self, data_reference_name: str | None = None, datapath_compute_binding: DataPathComputeBinding | None = None
    ) -> DataReference:
        """As an input of a run, bound to the node as the binding says; raises UserErrorException where no datastore was named."""
        binding = datapath_compute_binding or DataPathComputeBinding()
        return DataReference(
            self._there(),
            data_reference_name=data_reference_name or self._name,
            path_on_datastore=self.path_on_datastore,
            mode=binding.mode,
            path_on_compute=binding.path_on_compute,
            overwrite=binding.overwrite,
        )

    def _there(self) -> AbstractDatastore:
        if self._datastore is None:
            raise UserErrorException("A DataPath needs a datastore before a run can use it.", target="datastore")
        return self._datastore

    def _to_input(self, name: str) -> DatasetConsumptionConfig:
        return self.create_data_reference(name)._to_input(name)


class DataReference:
    """A file or folder of a datastore as a run's input; `str()` of it stands for the path on the node in arguments."""

    def __init__(
        self,
        datastore: AbstractDatastore,
        data_reference_name: str | None = None,
        path_on_datastore: str | None = None,
        mode: str = "mount",
        path_on_compute: str | None = None,
        overwrite: bool = False,
    ) -> None:
        self.datastore: AbstractDatastore = checked_datastore(datastore)
        self.path_on_datastore = _checked_path(path_on_datastore)
        self.data_reference_name = _name(data_reference_name or self.path_on_datastore or datastore.name)
        self.mode = _checked_mode(mode)
        self.path_on_compute = path_on_compute
        self.overwrite = overwrite

    def __str__(self) -> str:
        return f"$AZUREML_DATAREFERENCE_{self.data_reference_name}"

    def __repr__(self) -> str:
        return f"DataReference({self.data_reference_name!r}, {self.datastore.name}:{self.path_on_datastore!r}, mode={self.mode!r})"

    def path(self, path: str | None = None, data_reference_name: str | None = None) -> DataReference:
        """A place below this one."""
        whole = "/".join(part for part in (self.path_on_datastore, (path or "").strip("/")) if part)
        return DataReference(self.datastore, data_reference_name, whole, self.mode, self.path_on_compute, self.overwrite)

    def as_mount(self) -> DataReference:
        """The same place, read-only on the node."""
        return self._bound("mount", None, False)

    def as_download(self, path_on_compute: str | None = None, overwrite: bool = False) -> DataReference:
        """The same place, as a copy that the script may write to."""
        return self._bound("download", path_on_compute, overwrite)

    def as_upload(self, path_on_compute: str | None = None, overwrite: bool = False) -> DataReference:
        """Raises UserErrorException: a run keeps what it writes into ./outputs."""
        raise UserErrorException(
            "A run does not upload into a datastore: what it writes into ./outputs is kept.", target="as_upload", hint=_UPLOAD_HINT
        )

    def to_config(self) -> DataReferenceConfiguration:
        """For `run_config.data_references`."""
        return DataReferenceConfiguration(
            self.datastore.name, self.mode, self.path_on_datastore, self.path_on_compute, self.overwrite, _reference=self
        )

    def _bound(self, mode: str, path_on_compute: str | None, overwrite: bool) -> DataReference:
        return DataReference(self.datastore, self.data_reference_name, self.path_on_datastore, mode, path_on_compute, overwrite)

    def _to_input(self, name: str = "") -> DatasetConsumptionConfig:
        """The files as they are now, as an input of that name."""
        from trainyard._dataset import FileDataset
        from trainyard._dataset_input import DatasetConsumptionConfig
        from trainyard._stored_sources import SCHEME

        folder = f"{self.path_on_datastore}/" if self.path_on_datastore and not self._is_file() else self.path_on_datastore
        dataset = FileDataset([f"{SCHEME}{self.datastore.name}/{folder}"], workspace=self.datastore.workspace)
        return DatasetConsumptionConfig(
            _name(name or self.data_reference_name), dataset, self.mode, self.path_on_compute, always_folder=not self._is_file()
        )

    def _is_file(self) -> bool:
        path = self.path_on_datastore
        return bool(path) and any(file.path == path for file in self.datastore.stored(path))


class DataReferenceConfiguration:
    """A DataReference as a run configuration holds it. Made by hand it names a datastore of the workspace that config.json names."""

    def __init__(
        self,
        datastore_name: str | None = None,
        mode: str = "mount",
        path_on_datastore: str | None = None,
        path_on_compute: str | None = None,
        overwrite: bool = False,
        *,
        _reference: DataReference | None = None,
    ) -> None:
        self.datastore_name = datastore_name
        self.mode = _checked_mode(mode)
        self.path_on_datastore = path_on_datastore
        self.path_on_compute = path_on_compute
        self.overwrite = overwrite
        self._reference = _reference

    def _to_input(self, name: str) -> DatasetConsumptionConfig:
        if self._reference is not None:
            return self._reference._to_input(name)
        if not self.datastore_name:
            raise UserErrorException(f"The data reference {name!r} names no datastore.", target=name, hint="give datastore_name")
        from trainyard._datastore import Datastore
        from trainyard._workspace import Workspace

        datastore = Datastore.get(Workspace.from_config(), self.datastore_name)
        return DataReference(datastore, name, self.path_on_datastore, self.mode, self.path_on_compute, self.overwrite)._to_input(name)


def _checked_mode(mode: Any) -> str:
    if mode == "upload":
        raise UserErrorException("A run does not upload into a datastore.", target="mode", hint=_UPLOAD_HINT)
    if mode not in _MODES:
        raise UserErrorException(f"mode is one of {', '.join(_MODES)}, not {mode!r}.", target="mode")
    return str(mode)


def _checked_path(path: str | None) -> str:
    """Without slashes at the ends; "" is the whole datastore."""
    plain = (path or "").removesuffix("/")
    return safe_relpath(plain) if plain else ""


def _name(wish: str) -> str:
    """As an input is named: letters, digits and _, no digit first."""
    made = _NOT_IN_NAME.sub("_", wish)
    return made if not made[:1].isdigit() else f"_{made}"
