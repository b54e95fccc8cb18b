"""How a module of `azureml` finds its names. Standard library only: training scripts import it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

from azureml._names import ELSEWHERE, NAMES, entries


def serve(module: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """(`__getattr__`, `__dir__`, `__all__`) of the module. A name that it lacks raises AttributeError; one that is told about ImportError."""
    names = entries(module)

    def find(name: str) -> Any:
        if name in names:
            home, old = names[name]
            value = getattr(importlib.import_module(home), old)
            setattr(sys.modules[module], name, value)
            return value
        if f"{module}.{name}" in NAMES:
            return importlib.import_module(f"{module}.{name}")
        told = ELSEWHERE.get(module, {})
        instead = told.get(name) or (told.get("*") if not name.startswith("_") else None)
        if instead is not None:
            raise ImportError(f"{module}.{name} is not here: {instead}.", name=module)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    public = sorted(name for name in names if not name.startswith("_"))
    return find, lambda: sorted({*vars(sys.modules[module]), *names}), public
