"""What an environment consists of: the framework's line and the user's packages, as one definition with one id."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from services.chassis.environments.errors import BuildError
from services.chassis.environments.horovod import with_horovod

_DEFAULT_LINE = "2.15"
# The newest release of every line: patch releases only mend.
_NEWEST = {
    "2.15": "2.15.1",
    "2.16": "2.16.2",
    "2.17": "2.17.1",
    "2.18": "2.18.1",
    "2.19": "2.19.1",
    "2.20": "2.20.0",
    "2.21": "2.21.0",
}
# setuptools 81 took pkg_resources away, which packages of that time import.
_CONSTRAINTS = {"2.15": ("numpy<1.24", "setuptools<81")}
_SUPPORTED = "1.0 to 1.15 (their code, served by 2.15.1), 2.0 to 2.15 (served by 2.15.1, the last with Keras 2) and 2.16 to 2.21"
_VERSION = re.compile(r"(\d{1,4})\.(\d{1,4})(?:\.\d{1,9})?", re.ASCII)
_LONGEST = 4_000


@dataclass(frozen=True)
class Definition:
    """Two equal definitions are one environment. All parts are in a normal form: see `definition`."""

    requirements: tuple[str, ...]
    constraints: tuple[str, ...]
    python: str  # "3.11"
    conda: tuple[str, ...] = ()  # specifications for a conda that is on the node; empty = uv alone
    channels: tuple[str, ...] = ()  # for those, the first counts most

    @cached_property
    def id(self) -> str:
        """24 hex digits. Nothing of this machine goes into it."""
        parts: list[object] = [sorted(set(self.requirements)), sorted(set(self.constraints)), self.python]
        if self.conda:
            parts += [sorted(set(self.conda)), list(self.channels)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]

    def __str__(self) -> str:
        return ", ".join((*(f"conda {text}" for text in self.conda), *self.requirements)) or "no packages"


def definition(
    framework: str, framework_version: str, pip_packages: Sequence[str], *, extra: Sequence[str] = (), horovod: bool = False
) -> Definition:
    """The environment for a framework ("tensorflow", or "none" or "" for none) with the user's packages and the platform's own (`extra`).

    TensorFlow: no version, 1.x, or 2.0 to 2.15, is 2.15.1, the last with Keras 2, Estimators and a Horovod that fits, with NumPy before
    1.24 (which still has `np.bool` and the like); 2.16 to 2.21 is the newest release of that line. Order and duplicates of packages
    make no difference. `horovod`: the run is a ring; whichever Horovod is named, it is the one that we compile. Raises BuildError with code "UserError" and the thing at fault as its target.
    """
    name = framework.lower()
    if name not in ("tensorflow", "none", ""):
        raise BuildError("UserError", f"There is no framework {framework!r}; there are 'tensorflow' and 'none'.", target=framework)
    required = [requirement(text) for text in (*pip_packages, *extra)]
    constraints: Iterable[str] = ()
    if name == "tensorflow":
        line = _line(framework_version)
        required.append(f"tensorflow-cpu=={_NEWEST[line]}")
        # A package that asks for `tensorflow` must not bring another release beside `tensorflow-cpu`: they share one folder.
        constraints = (f"tensorflow=={_NEWEST[line]}", *_CONSTRAINTS.get(line, ()))
    required = with_horovod(required, horovod)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return Definition(tuple(sorted(set(required))), tuple(sorted(constraints)), python)


def is_tensorflow_1(version: str) -> bool:
    """Its releases ran on Python up to 3.7: 2.15.1 serves their code by `tensorflow.compat.v1`."""
    match = _VERSION.fullmatch(version)
    return match is not None and int(match[1]) == 1 and int(match[2]) <= 15


def is_served_by_default_line(version: str) -> bool:
    """Is it a release of its time that 2.15.1 stands in for?"""
    match = _VERSION.fullmatch(version)
    return match is not None and (is_tensorflow_1(version) or (int(match[1]) == 2 and int(match[2]) < 15))


def _line(version: str) -> str:
    if not version:
        return _DEFAULT_LINE
    match = _VERSION.fullmatch(version)
    major, minor = (int(match[1]), int(match[2])) if match else (0, 0)
    if is_tensorflow_1(version) or (major == 2 and minor <= 15):
        return _DEFAULT_LINE
    line = f"{major}.{minor}"
    if line not in _NEWEST:
        raise BuildError("UserError", f"TensorFlow {version[:100]!r} is not known. Supported are {_SUPPORTED}.", target=version[:100])
    return line


def requirement(text: str) -> str:
    """A requirement in normal form. Only what an index has by name: options and addresses would fetch from elsewhere, paths would read this machine."""
    wrong = ""
    try:
        parsed = Requirement(text[:_LONGEST])
    except InvalidRequirement as error:
        wrong = str(error).splitlines()[0]
    except RecursionError:
        wrong = "it is nested too deeply"
    else:
        if parsed.url:
            wrong = "addresses and paths are not taken, only packages of the index by name"
    if len(text) > _LONGEST:
        wrong = f"it has {len(text)} characters, more than {_LONGEST}"
    if text.startswith("-"):
        wrong = "options are not taken"
    if any(ord(char) < 32 or ord(char) == 127 for char in text):
        wrong = "it has a line break or another control character"
    if wrong:
        raise BuildError(
            "UserError",
            f"{text[:200]!r} is no requirement: {wrong}. Write it like 'pandas', 'pandas==2.2.3' or 'pandas>=2,<3'.",
            target=text[:1000],
        )
    parsed.name = canonicalize_name(parsed.name)
    return str(parsed)
