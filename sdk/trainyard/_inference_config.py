"""A scoring script: the code that answers for an endpoint, its folder, and what it may import."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainyard._environment import Environment
from trainyard._errors import UserErrorException, WebserviceException

if TYPE_CHECKING:
    from trainyard._objects import Objects
    from trainyard.endpoint.v1.endpoint_pb2 import Scoring

# Every deployment's event holds the list of its source's files: what is longer lies in the object store.
_MOST_BYTES = 20_000


class InferenceConfig:
    """`entry_script` has `init()`, which is called once before the endpoint goes live, and `run(raw_data)`, called for each request: it
    gets the body as text, and what it returns is answered as JSON. The model's files are in the folder that AZUREML_MODEL_DIR names.

    source_directory: the folder that the script is in and runs in; None takes the script's file alone. environment: what it may import;
    None is Python without packages. Options of container images have no effect, and say so.
    """

    def __init__(
        self,
        entry_script: str,
        runtime: str | None = None,
        conda_file: str | os.PathLike[str] | None = None,
        extra_docker_file_steps: str | None = None,
        source_directory: str | os.PathLike[str] | None = None,
        enable_gpu: bool | None = None,
        description: str | None = None,
        base_image: str | None = None,
        base_image_registry: Any = None,
        cuda_version: str | None = None,
        environment: Environment | None = None,
    ) -> None:
        if not isinstance(entry_script, str | os.PathLike) or not str(entry_script).endswith(".py"):
            raise UserErrorException(f"entry_script is a Python file, not {entry_script!r}.", target="entry_script", hint="e.g. 'score.py'")
        if environment is not None and not isinstance(environment, Environment):
            raise UserErrorException(f"environment is an Environment, not {environment!r}.", target="environment")
        if environment is not None and conda_file is not None:
            raise UserErrorException("Give environment or conda_file, not both.", target="environment")
        for option, value in (
            ("extra_docker_file_steps", extra_docker_file_steps),
            ("enable_gpu", enable_gpu),
            ("base_image", base_image),
            ("base_image_registry", base_image_registry),
            ("cuda_version", cuda_version),
        ):
            if value:
                warnings.warn(f"{option} has no effect: scripts run as processes, not in images.", stacklevel=2)
        if runtime not in (None, "python"):
            warnings.warn(f"runtime {runtime!r} has no effect: scripts run in Python.", stacklevel=2)
        self.entry_script = os.fspath(entry_script)
        self.source_directory = None if source_directory is None else os.fspath(source_directory)
        self.description = description
        self.environment = environment
        self._beside: tuple[str, ...] = ()  # files and folders that go with a script without a folder
        if conda_file is not None:
            self.environment = Environment.from_conda_specification("inference", conda_file)

    def __repr__(self) -> str:
        return f"InferenceConfig(entry_script={self.entry_script!r}, source_directory={self.source_directory!r}, environment={self.environment!r})"

    def _to_message(self, objects: Objects, *, show_progress: bool) -> Scoring:
        """Sends the source folder, what the store has already left out. Raises WebserviceException where the script is not in it."""
        from trainyard import _snapshot
        from trainyard.endpoint.v1.endpoint_pb2 import Scoring
        from trainyard.job.v1.spec_pb2 import EnvironmentSpec

        script, folder = self.entry_script, self.source_directory
        made = Scoring(environment=self.environment._to_message() if self.environment is not None else EnvironmentSpec(framework="none"))
        path = Path(script) if folder is None else Path(folder) / script
        if not path.is_file():
            where = "the source_directory" if folder is not None else "this folder"
            raise WebserviceException(
                f"The entry script {script!r} is not in {where} ({path.absolute()}).", code="UserError", target="entry_script"
            )
        if folder is None:
            made.entry_script = path.name
            made.source.inline.files[path.name] = path.read_bytes()
            for name, file in _files(self._beside):
                made.source.inline.files[name] = file.read_bytes()
            return made
        made.entry_script = Path(script).as_posix()
        sent = _snapshot.take(Path(folder), objects, show_progress=show_progress)
        made.source.snapshot.CopyFrom(sent if sent.ByteSize() <= _MOST_BYTES else _snapshot._by_name(objects, sent))
        return made


def _files(paths: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """Files by their path below the working directory. Raises UserErrorException for what is not there, or lies elsewhere."""
    for given in paths:
        path = Path(os.path.normpath(given))
        if path.is_absolute() or path.parts[:1] == ("..",) or not path.exists():
            raise UserErrorException(f"{given!r} is no file or folder below the working directory.", target="dependencies")
        found = sorted(it for it in path.rglob("*") if it.is_file()) if path.is_dir() else [path]
        yield from ((it.as_posix(), it) for it in found)
