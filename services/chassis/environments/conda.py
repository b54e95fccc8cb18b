"""conda specifications (environment.yml): read, given to a conda that is on the node, or told to pip where there is none."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.chassis.environments.conda_names import OTHER_NAME, SAME_NAME
from services.chassis.environments.errors import BuildError
from trainyard import _yaml

_TOOLS = ("micromamba", "mamba", "conda")
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_CHANNEL = re.compile(rf"{_NAME}(/{_NAME})*\Z")
# channel::name, then a version (=, ==, >=, or after a space), then a build string.
_SPECIFICATION = re.compile(rf"(?:(?P<channel>[\w.-]+)::)?(?P<name>{_NAME})\s*(?P<version>[^\[\]]*)\Z")
_VERSION = re.compile(r"(?:(?:[=<>!~]{1,2}\s*)?[\w.*+!]+)(?:\s*,\s*[=<>!~]{1,2}\s*[\w.*+!]+)*(?:[=\s][\w.*]+)?\Z")
_MOST_CHARACTERS, _MOST_PACKAGES = 64 << 10, 500


@dataclass(frozen=True)
class Specification:
    """environment.yml in parts: each list in its own order, every text checked to be what it looks like."""

    python: str  # version asked for, e.g. "3.6.2"; "" = any
    packages: tuple[str, ...]  # conda's, without python and pip
    pip: tuple[str, ...]
    channels: tuple[str, ...]


def tool() -> str | None:
    """The path of micromamba, mamba or conda on this node."""
    named = (os.environ.get("MAMBA_EXE"), os.environ.get("CONDA_EXE"))
    return next((found for name in (*_TOOLS, *named) if name and (found := shutil.which(name))), None)


def command(root: Path, packages: Sequence[str], channels: Sequence[str]) -> list[str]:
    """argv that makes an environment with those packages. Raises BuildError where the node has no tool."""
    found = tool()
    if found is None:
        raise BuildError("EnvironmentBuildFailed", f"This node has none of {', '.join(_TOOLS)}, which conda packages need.")
    chosen = ["--override-channels", *(word for channel in channels for word in ("--channel", channel))] if channels else []
    return [found, "create", "--yes", "--prefix", str(root), *chosen, *packages]


def read(text: str) -> Specification:
    """Raises BuildError with code "UserError" and what is at fault as its target."""
    content = _parsed(text)
    packages: list[str] = []
    pip: list[str] = []
    python = ""
    for item in _list(content, "dependencies"):
        if isinstance(item, Mapping):
            if set(item) != {"pip"}:
                raise _wrong(f"the dependency {str(item)[:100]!r} is none: besides names there is only 'pip:' with a list", "dependencies")
            pip += [_text(each, "pip") for each in _list(item, "pip")]
            continue
        name, version = split(_text(item, "dependencies"))
        if name == "python":
            python = version.lstrip("=<>!~ ").split(",")[0].split("=")[0].rstrip(".*") if version else ""
        elif name != "pip":
            packages.append(f"{name}{version}")
    channels = [_text(each, "channels") for each in _list(content, "channels")]
    for channel in channels:
        if not _CHANNEL.match(channel):
            raise _wrong(f"the channel {channel[:100]!r} is none: channels are taken by name, not by address", channel)
    if len(packages) + len(pip) > _MOST_PACKAGES:
        raise _wrong(f"it names {len(packages) + len(pip)} packages, more than {_MOST_PACKAGES}", "dependencies")
    return Specification(python, tuple(packages), tuple(pip), tuple(it for it in channels if it != "defaults" or len(channels) > 1))


def split(text: str) -> tuple[str, str]:
    """(name in lower case, version part without spaces at its ends). Raises BuildError for what is no specification."""
    match = _SPECIFICATION.match(text.strip())
    version = match["version"].strip() if match else ""
    if match is None or (version and not _VERSION.match(version)):
        raise _wrong(f"{text[:100]!r} is no conda specification; write it like 'numpy', 'numpy=1.23' or 'numpy>=1.20,<2'", text)
    if version and version[0] not in "=<>!~":
        version = f"={version.replace(' ', '=')}"
    return match["name"].lower(), version.replace(" ", "")


def as_requirements(packages: Sequence[str]) -> list[str]:
    """The same as pip's requirements. Raises BuildError naming all packages that pip has not, or not by a name that is known here."""
    strange = [name for name, _ in map(split, packages) if name not in SAME_NAME and name not in OTHER_NAME]
    if strange:
        raise BuildError(
            "UserError",
            f"The conda package{'s' if len(strange) > 1 else ''} {', '.join(strange)} cannot be had: this node has none of "
            f"{', '.join(_TOOLS)}, and no package of the index is known to be the same. Put micromamba on the node's PATH, name what the "
            "script needs in pip_packages, or leave it out.",
            target=strange[0],
        )
    return [f"{OTHER_NAME.get(name, name)}{_pins(version)}" for name, version in map(split, packages)]


def _pins(version: str) -> str:
    """conda's "=1.23" is pip's "==1.23.*"; a build string has no meaning there."""
    if not version:
        return ""
    if version.startswith("=") and not version.startswith("=="):
        number = version[1:].split("=")[0].rstrip("*").rstrip(".")
        return f"=={number}.*" if number else ""
    if version.startswith("=="):
        return f"=={version[2:].split('=')[0]}"
    return version


def _parsed(text: str) -> Mapping[Any, Any]:
    if len(text) > _MOST_CHARACTERS:
        raise _wrong(f"it has {len(text)} characters, more than {_MOST_CHARACTERS}", "conda_specification")
    try:
        content = _yaml.read(text)
    except ValueError as error:
        raise _wrong(f"it is no YAML: {error}", "conda_specification") from error
    if not isinstance(content, Mapping):
        raise _wrong("it has no 'dependencies:'", "conda_specification")
    return content


def _list(content: Mapping[Any, Any], key: str) -> Sequence[Any]:
    found = content.get(key)
    if found is None:
        return []
    if not isinstance(found, list):
        raise _wrong(f"'{key}:' must be a list", key)
    return found


def _text(item: Any, where: str) -> str:
    if not isinstance(item, str) or not item.strip() or any(ord(char) < 32 or ord(char) == 127 for char in item):
        raise _wrong(f"'{where}:' has {str(item)[:100]!r}, which is no name", where)
    return item.strip()


def _wrong(what: str, target: str) -> BuildError:
    return BuildError("UserError", f"The conda specification cannot be read: {what}.", target=target[:200])


def node_python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"
