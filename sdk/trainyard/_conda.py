"""CondaDependencies: an environment.yml as an object."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from trainyard import _yaml
from trainyard._errors import UserErrorException

DEFAULT_FILE = "conda_dependencies.yml"
DEFAULT_PYTHON = "3.11"
# A package's name is what stands before its version, build or extras.
_NAME = re.compile(r"(?:[\w.-]+::)?([\w.-]+)")


class CondaDependencies:
    """Conda packages, pip packages and channels, in the order in which they were added.

    A later package of the same name takes the place of the earlier. Raises UserErrorException for a file that is no specification.
    """

    def __init__(self, conda_dependencies_file_path: str | PathLike[str] | None = None) -> None:
        self._channels: list[str] = []
        self._conda: list[str] = []
        self._pip: list[str] = []
        self._options: list[str] = []
        self._python: str | None = None
        if conda_dependencies_file_path is not None:
            self._read(Path(conda_dependencies_file_path))

    @staticmethod
    def create(
        pip_indexurl: str | None = None,
        pip_packages: Sequence[str] | None = None,
        conda_packages: Sequence[str] | None = None,
        python_version: str | None = None,
        pin_sdk_version: bool = True,
    ) -> CondaDependencies:
        """`pin_sdk_version` is taken and has no effect: no SDK is installed beside a script."""
        made = CondaDependencies()
        if python_version is not None:
            made.set_python_version(python_version)
        for package in conda_packages or ():
            made.add_conda_package(package)
        for package in pip_packages or ():
            made.add_pip_package(package)
        if pip_indexurl is not None:
            made.set_pip_index_url(pip_indexurl)
        return made

    def __repr__(self) -> str:
        return f"CondaDependencies(conda_packages={self._conda}, pip_packages={self._pip}, channels={self._channels})"

    # -- what is in it

    @property
    def conda_packages(self) -> Iterator[str]:
        """What conda is asked for, as MatchSpecs, without Python and pip themselves."""
        return iter([f"python={self.python_version}", *self._conda])

    @property
    def pip_packages(self) -> Iterator[str]:
        """What pip is asked for, as PEP 508 requirements, options left out."""
        return iter(list(self._pip))

    @property
    def pip_options(self) -> Iterator[str]:
        """Lines among pip's that begin with a dash."""
        return iter(list(self._options))

    @property
    def conda_channels(self) -> Iterator[str]:
        """Where conda looks, first one first."""
        return iter(list(self._channels))

    @property
    def python_version(self) -> str:
        """As in "python=3.11"; empty where the file names none."""
        return self._python or DEFAULT_PYTHON

    # -- changes

    def set_python_version(self, version: str) -> None:
        """Scripts run on the node's own version; a run that asked for another is told so."""
        self._python = str(version)

    def add_channel(self, channel: str) -> None:
        """One more place for conda to look; a second time changes nothing."""
        if channel not in self._channels:
            self._channels.append(channel)

    def remove_channel(self, channel: str) -> None:
        """No error where it was never added."""
        if channel in self._channels:
            self._channels.remove(channel)

    def add_conda_package(self, conda_package: str) -> None:
        """E.g. "numpy", "numpy=1.23" or "python=3.11"."""
        if name_of(conda_package) == "python":
            self.set_python_version(conda_package.partition("python")[2].lstrip("=<>! ") or DEFAULT_PYTHON)
        else:
            _put(self._conda, conda_package)

    def remove_conda_package(self, conda_package: str) -> None:
        """By name, whatever version was asked for; no error where it is not there."""
        _take_out(self._conda, conda_package)

    def add_pip_package(self, pip_package: str) -> None:
        """A PEP 508 requirement, e.g. "pandas>=2,<3"."""
        _put(self._pip, pip_package)

    def remove_pip_package(self, pip_package: str) -> None:
        """By name, whatever version was asked for; no error where it is not there."""
        _take_out(self._pip, pip_package)

    def set_pip_option(self, pip_option: str) -> None:
        """Kept in the file. A run with options of pip is refused: it must not change where packages come from."""
        if pip_option not in self._options:
            self._options.append(pip_option)

    def set_pip_index_url(self, index_url: str) -> None:
        """Kept in the file; building refuses it, since a run must not change where packages come from."""
        self.set_pip_option(f"--index-url {index_url}")

    def add_tensorflow_conda_package(self, core_type: str = "cpu", version: str | None = None) -> None:
        """`core_type` "cpu" or "gpu"; `version` None leaves the choice to the resolver."""
        self.add_conda_package(_tensorflow(core_type) + (f"={version}" if version else ""))

    def add_tensorflow_pip_package(self, core_type: str = "cpu", version: str | None = None) -> None:
        """`core_type` "cpu" or "gpu"; `version` None leaves the choice to the resolver."""
        self.add_pip_package(_tensorflow(core_type) + (f"=={version}" if version else ""))

    def remove_tensorflow_conda_package(self) -> None:
        """Both kinds, "cpu" and "gpu", if they are there."""
        for name in ("tensorflow", "tensorflow-gpu"):
            self.remove_conda_package(name)

    def remove_tensorflow_pip_package(self) -> None:
        """Both kinds, "cpu" and "gpu", if they are there."""
        for name in ("tensorflow", "tensorflow-gpu"):
            self.remove_pip_package(name)

    # -- as text

    def as_dict(self) -> dict[str, Any]:
        """What environment.yml holds, as plain lists and texts."""
        pip = [*self._options, *self._pip]
        dependencies: list[Any] = [*self.conda_packages, *(["pip", {"pip": pip}] if pip else [])]
        return {"name": "project_environment", "dependencies": dependencies, **({"channels": self._channels} if self._channels else {})}

    def serialize_to_string(self) -> str:
        """environment.yml's text."""
        import yaml

        return str(yaml.safe_dump(self.as_dict(), sort_keys=False, default_flow_style=False))

    def save(self, path: str | PathLike[str] | None = None) -> str:
        """Writes to `path`, a file (its folders are made); returns it."""
        target = Path(path or DEFAULT_FILE)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(self.serialize_to_string(), "utf-8")
        return str(target)

    def save_to_file(self, base_directory: str | PathLike[str], conda_file_path: str | PathLike[str] | None = None) -> str:
        """Writes below `base_directory`; returns the path inside it. Raises UserErrorException for a path that leads out."""
        inside = Path(conda_file_path or DEFAULT_FILE)
        if inside.is_absolute() or ".." in inside.parts:
            raise UserErrorException(f"conda_file_path {str(inside)!r} must be a path inside {base_directory}.", target=str(inside))
        self.save(Path(base_directory) / inside)
        return str(inside)

    def _read(self, path: Path) -> None:
        try:
            text = path.read_text("utf-8")
        except OSError as error:
            raise UserErrorException(f"The conda file {path} cannot be read: {error.strerror}.", target=str(path)) from error
        except UnicodeDecodeError as error:
            raise _wrong(str(path), "it is no text in UTF-8") from error
        self._take(text, str(path))

    def _take(self, text: str, where: str) -> None:
        """environment.yml's text on top of what is there."""
        try:
            content = _yaml.read(text)
        except ValueError as error:
            raise _wrong(where, f"it is no YAML ({error})") from error
        if not isinstance(content, dict):
            raise _wrong(where, "it has no 'dependencies:'")
        for channel in content.get("channels") or ():
            self.add_channel(str(channel))
        for item in content.get("dependencies") or ():
            if isinstance(item, str):
                if name_of(item) != "pip":
                    self.add_conda_package(item)
            elif isinstance(item, dict) and isinstance(item.get("pip"), list) and len(item) == 1:
                for package in item["pip"]:
                    self.set_pip_option(package) if str(package).startswith("-") else self.add_pip_package(str(package))
            else:
                raise _wrong(where, f"{str(item)[:100]!r} under 'dependencies:' is neither a name nor 'pip:' with a list")


def name_of(package: str) -> str:
    match = _NAME.match(package.strip())
    return match[1].lower() if match else package


def _put(packages: list[str], package: str) -> None:
    _take_out(packages, package)
    packages.append(package.strip())


def _take_out(packages: list[str], package: str) -> None:
    packages[:] = [there for there in packages if name_of(there) != name_of(package)]


def _tensorflow(core_type: str) -> str:
    if core_type not in ("cpu", "gpu"):
        raise UserErrorException(f"core_type is 'cpu' or 'gpu', not {core_type!r}.", target="core_type")
    return "tensorflow-gpu" if core_type == "gpu" else "tensorflow"


def _wrong(where: str, what: str) -> UserErrorException:
    return UserErrorException(f"{where} is no conda specification: {what}.", target=where)
