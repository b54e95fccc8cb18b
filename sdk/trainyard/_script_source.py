"""The folder of a run and the script in it, looked at before anything is sent."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from os import PathLike
from pathlib import Path, PurePosixPath

from trainyard._errors import TrainingException, UserErrorException

_PACKAGES = ("azureml", "horovod", "trainyard")


def checked_folder(folder: str | Path) -> Path:
    """Raises UserErrorException where there is none, TrainingException for what is no path."""
    if not isinstance(folder, str | PathLike):
        raise TrainingException(f"source_directory is a folder's path, not {folder!r}.", target="source_directory")
    found = Path(folder)
    if not found.is_dir():
        raise UserErrorException(f"The source_directory {found} does not exist or is no folder.", target=str(found))
    return found


def checked_script(folder: Path, script: str | None, parameter: str) -> str:
    """The script's path inside the folder, POSIX. Raises TrainingException where none is named, UserErrorException where it is not there."""
    if not script:
        raise TrainingException(f"A run needs a script: {parameter} is not given.", target=parameter)
    path = folder / script
    if Path(script).is_absolute() or ".." in Path(script).parts:
        raise UserErrorException(f"{parameter} {script!r} must be a path inside {folder}.", target=script)
    if not path.is_file():
        there = sorted(found.name for found in folder.glob("*.py"))[:10]
        listed = ", ".join(there) or "no Python file"
        raise UserErrorException(f"The {parameter} {script!r} does not exist in {folder}; there is: {listed}.", target=script)
    return Path(script).as_posix()


def refuse_shadows(entry_script: str, paths: Iterable[str], framework: str) -> None:
    """Python looks beside the script first: a file there that is called as a package takes its place.

    Raises TrainingException where the script itself is called so; for others beside it, or at the root where a command runs, a warning.
    """
    packages = (*_PACKAGES, *(("tensorflow", "keras") if framework == "TensorFlow" else ()))
    beside = PurePosixPath(entry_script).parent
    for path in map(PurePosixPath, paths):
        package = path.parent.name if path.name == "__init__.py" else path.stem if path.suffix == ".py" else ""
        folder = path.parent.parent if path.name == "__init__.py" else path.parent
        if package not in packages or folder != beside:
            continue
        what = f"{path} has the name of the package {package}: `import {package}` would give that file, and not the package."
        if str(path) == entry_script:
            raise TrainingException(what, target=str(path), hint=f"rename it, to train_{package}.py for example")
        warnings.warn(f"{what} Rename it, or list it in .amlignore.", stacklevel=3)
