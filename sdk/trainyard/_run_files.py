"""What a run has left behind: its files, its source folder, and models out of them. Loads with the standard library alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainyard._client_run import ClientRun
from trainyard._download_places import place_of, places_below
from trainyard._errors import ModelPathNotFoundException, UserErrorException

if TYPE_CHECKING:
    from trainyard._dataset import FileDataset
    from trainyard._model import Model
    from trainyard._resource_configuration import ResourceConfiguration


class RunFiles(ClientRun):
    """Of a run that its client may be done with long ago."""

    def _refresh(self) -> Any:
        """`_message` as it is now; one that has ended is not asked for again."""
        from trainyard._watch import is_terminal

        if not is_terminal(self._message.status):
            self._message = self._fetch()
        return self._message

    def _files(self) -> dict[str, Any]:
        from trainyard._history import files_of, run_view

        workspace = self.experiment.workspace
        return {file.path: file for file in files_of(workspace, run_view(workspace, self.id))}

    def get_file_names(self) -> list[str]:
        """Paths of what it left behind and of what was uploaded apart, sorted: outputs/..., logs/..., azureml-logs/..."""
        return sorted(self._files())

    def download_file(self, name: str, output_file_path: str | None = None) -> None:
        """Checked against its digest. Into output_file_path (a file, or an existing folder), else under its last name here."""
        files = self._files()
        if name not in files:
            raise UserErrorException(f"Run {self.id} has no file {name!r}; its files are: {_listed(files)}.", target=name)
        self._download([(files[name], place_of(name, output_file_path))])

    def download_files(
        self,
        prefix: str | None = None,
        output_directory: str | None = None,
        output_paths: list[str] | None = None,
        append_prefix: bool = True,
    ) -> None:
        """Everything below prefix; append_prefix=False leaves the prefix out of the local paths."""
        files = self._files()
        places = places_below(sorted(files), prefix, output_directory, output_paths, append_prefix=append_prefix)
        self._download([(files[name], place) for name, place in places])

    def get_all_logs(self, destination: str | None = None) -> list[str]:
        """Every log of every rank as a file below destination (default: a folder named after the run); their paths.

        Of a run that goes on: what is written up to now.
        """
        from trainyard import _logs
        from trainyard._history import run_view

        workspace = self.experiment.workspace
        return _logs.save(workspace, run_view(workspace, self.id), Path(destination if destination is not None else self.id))

    download_logs = get_all_logs

    def _download(self, files: list[tuple[Any, Path]]) -> None:
        from trainyard._details import fetch_all

        fetch_all(self.experiment.workspace._objects, files)

    def restore_snapshot(self, path: str | None = None) -> str:
        """The source folder as the run got it, below `path` (default: a new folder named after the run); returns where it lies.

        Every file is checked against its digest. Files that are there under the same names are replaced, others stay.
        """
        from trainyard import _snapshot
        from trainyard._paths import below

        folder = Path(path) if path is not None else Path(self.id)
        source = self._message.spec.source
        if source.WhichOneof("where") == "inline":
            for name, content in source.inline.files.items():
                target = below(folder, name)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
        elif source.WhichOneof("where") == "snapshot":
            _snapshot.restore(self.experiment.workspace._objects, source.snapshot, folder)
        else:
            raise UserErrorException(f"Run {self.id} has no snapshot of a source folder.", target=self.id)
        return str(folder)

    def _get_outputs_datapath(self) -> Any:
        """A DataPath of what this run has left in ./outputs, to be mounted by another run."""
        from trainyard._datastore import outputs_of

        return outputs_of(self.experiment.workspace, self.id)

    def register_model(
        self,
        model_name: str,
        model_path: str | None = None,
        tags: Mapping[str, str] | None = None,
        properties: Mapping[str, str] | None = None,
        model_framework: str | None = None,
        model_framework_version: str | None = None,
        description: str | None = None,
        datasets: Sequence[Any] | None = None,
        sample_input_dataset: FileDataset | None = None,
        sample_output_dataset: FileDataset | None = None,
        resource_configuration: ResourceConfiguration | None = None,
    ) -> Model:
        """A file or folder of this run's artifacts as a new version; a path that is not there raises ModelPathNotFoundException.

        datasets: registered FileDatasets, or pairs (purpose, FileDataset), which its lineage names beside what the run itself read.
        Of a run in its client's hands what was uploaded up to now counts; of a submitted one what is there when it has ended.
        """
        import uuid

        from trainyard._model import Model
        from trainyard._model_find import dataset_refs
        from trainyard._texts import texts
        from trainyard.model.v1 import model_pb2

        request = model_pb2.RegisterModelVersion(
            submission_id=uuid.uuid4().hex,
            model=model_name,
            run_id=self.id,
            path=model_path or model_name,
            framework=model_framework or "",
            framework_version=model_framework_version or "",
            description=description or "",
            tags=texts("tags", tags),
            properties=texts("properties", properties),
        )
        if self._refresh().opened:
            request.files.CopyFrom(self._chosen(request.path))
            request.ClearField("path")
        if resource_configuration is not None:
            request.requirements.CopyFrom(resource_configuration._to_message())
        request.datasets.extend(dataset_refs(datasets, sample_input_dataset, sample_output_dataset))
        workspace = self.experiment.workspace
        answer = workspace._clients.call(workspace._clients.models.RegisterModelVersion, request)
        return Model._from_message(workspace, answer.version)

    def _chosen(self, path: str) -> Any:
        """The file, or the folder's files, as the registry wants them: paths below the folder's parent."""
        from trainyard.event.v1.artifact_pb2 import Artifact, ArtifactSet

        path = path.removeprefix("./").rstrip("/")
        above = len(path.rpartition("/")[0])
        files = {name: file for name, file in self._files().items() if name == path or name.startswith(f"{path}/")}
        if not files:
            what = f"Run {self.id} has no file or folder {path!r}; its files are: {_listed(self._files())}."
            raise ModelPathNotFoundException(what, target=path)

        def moved(name: str, file: Any) -> Artifact:
            local = name[above:].lstrip("/")
            return Artifact(path=local, size_bytes=file.size_bytes, sha256=file.sha256, object_key=file.object_key)

        return ArtifactSet(files=[moved(name, file) for name, file in sorted(files.items())])


def _listed(files: Mapping[str, Any]) -> str:
    names = sorted(files)
    return (", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")) or "none"
