"""TensorFlow 1.x for scripts of its time: stands before the real package on a script's path and serves `tensorflow.compat.v1` in its place.

The real TensorFlow 2.15 is loaded under its own name, with the behaviour of version 2 switched off; then this name is given to a module
whose attributes are those of version 1. Modules from inside the package (`tensorflow.python`, `tensorflow.core`) stay what they are.
Standard library only: it runs in the script's environment.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import logging
import os
import sys
import types
from collections.abc import Sequence
from typing import Any

_HERE = os.path.dirname(os.path.abspath(__file__))
_V1 = "tensorflow.compat.v1"
_CONTRIB = "tensorflow.contrib"
_PACKAGE = "_empty.py"
# Modules that TensorFlow 2 has no more, and the file here that stands for each.
_OURS = {
    _CONTRIB: "_contrib.py",
    "tensorflow.examples": _PACKAGE,
    "tensorflow.examples.tutorials": _PACKAGE,
    "tensorflow.examples.tutorials.mnist": _PACKAGE,
    "tensorflow.examples.tutorials.mnist.input_data": "_mnist.py",
}
_INSIDE = {"_api", "compat", "compiler", "core", "dtensor", "include", "lite", "python", "security", "tools", "tsl", "xla_aot_runtime_src"}


class _Version1(types.ModuleType):
    """What `import tensorflow as tf` gives: version 1's names; where it has none, the real package's."""

    def __getattr__(self, name: str) -> Any:
        if name == "contrib":
            return importlib.import_module(_CONTRIB)
        real = self.__dict__["_real"]
        try:
            return getattr(real.compat.v1, name)
        except AttributeError:
            return getattr(real, name)

    def __dir__(self) -> list[str]:
        return sorted({*dir(self.__dict__["_real"].compat.v1), "contrib"})


class _Same(importlib.abc.Loader):
    """A module under a second name; it keeps the specification of its first."""

    def __init__(self, first_name: str) -> None:
        self._first_name = first_name

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        module = importlib.import_module(self._first_name)
        self._own = module.__spec__
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        module.__spec__ = self._own


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname in _OURS:
            folders: list[str] | None = [] if _OURS[fullname] == _PACKAGE or fullname == _CONTRIB else None
            return importlib.util.spec_from_file_location(
                fullname, os.path.join(_HERE, _OURS[fullname]), submodule_search_locations=folders
            )
        if fullname.startswith(f"{_CONTRIB}."):
            getattr(sys.modules[_CONTRIB], fullname.split(".")[2])  # says what took its place
            return None
        package, _, rest = fullname.partition(".")
        if package != "tensorflow" or not rest or rest.split(".")[0] in _INSIDE:
            return None
        first_name = _first_name(rest)
        if first_name is None:
            return None
        return importlib.machinery.ModuleSpec(fullname, _Same(first_name), is_package=hasattr(sys.modules[first_name], "__path__"))


def _first_name(rest: str) -> str | None:
    """Under which name the module that `tensorflow.<rest>` means is loaded already; None where version 1 has none."""
    parent, _, last = f"tensorflow.{rest}".rpartition(".")
    found = getattr(sys.modules.get(parent), last, None)
    if isinstance(found, types.ModuleType):
        dir(found)  # a lazy loader becomes its module once it is looked at
        return found.__name__ if found.__name__ in sys.modules else None
    name = f"{_V1}.{rest}"
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and not name.startswith(error.name):
            raise
        return None
    return name


def _serve() -> None:
    """Raises ModuleNotFoundError where the environment has no TensorFlow."""
    elsewhere = [folder for folder in sys.path if os.path.abspath(folder or ".") != os.path.dirname(_HERE)]
    spec = importlib.machinery.PathFinder.find_spec("tensorflow", elsewhere)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError("No module named 'tensorflow': this environment has none", name="tensorflow")
    real: Any = importlib.util.module_from_spec(spec)
    sys.modules["tensorflow"] = real
    spec.loader.exec_module(real)
    served = _Version1("tensorflow", real.__doc__)
    for name in ("__path__", "__spec__", "__file__", "__loader__", "__package__", "__version__", "compat"):
        setattr(served, name, getattr(real, name))
    served.__dict__["_real"] = real
    _quietly(real.compat.v1.disable_v2_behavior)
    sys.modules["tensorflow"] = served
    sys.meta_path.insert(0, _Finder())


def _quietly(work: Any) -> None:
    """Its advice to leave version 1 behind is for authors, not for whoever runs their script."""
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        work()
    finally:
        logger.setLevel(level)


_serve()
