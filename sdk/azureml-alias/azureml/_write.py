"""Writes the modules that `_names.py` lists: `python -m azureml._write`."""

from __future__ import annotations

from pathlib import Path

from azureml._names import NAMES, entries

ROOT = Path(__file__).resolve().parent


def path_of(module: str) -> Path:
    """A package where other modules lie below it."""
    below = module.removeprefix("azureml").strip(".").replace(".", "/")
    is_package = any(other.startswith(f"{module}.") for other in NAMES)
    return ROOT / below / "__init__.py" if is_package else ROOT / f"{below}.py"


def text_of(module: str) -> str:
    is_package = path_of(module).name == "__init__.py"
    by_home: dict[str, list[tuple[str, str]]] = {}
    for name, (home, old) in sorted(entries(module).items()):
        by_home.setdefault(home, []).append((name, old))
    imports = ["from pkgutil import extend_path"] * is_package + ["from typing import TYPE_CHECKING"] * bool(by_home)
    lines = [f'"""`{module}`, given by Trainyard. Made from _names.py by `python -m azureml._write`."""', ""]
    lines += [*imports, ""] if imports else []
    lines += ["from azureml._lazy import serve", "", "__getattr__, __dir__, __all__ = serve(__name__)  # noqa: PLE0605"]
    if is_package:
        lines += ["# Other distributions may have modules of their own below it.", "__path__ = extend_path(__path__, __name__)"]
    if by_home:
        # For editors, which do not run it.
        lines += ["", "if TYPE_CHECKING:"]
        for home in sorted(by_home):
            lines += [_import(home, name, old) for name, old in sorted(by_home[home], key=_by_kind)]
    return "\n".join(lines) + "\n"


def _import(home: str, name: str, old: str) -> str:
    return f"    from {home} import {old} as {name}" + ("" if name == old else "  # noqa: F401")


def _by_kind(names: tuple[str, str]) -> tuple[int, str]:
    """Constants, classes, the rest."""
    _, old = names
    return (0 if old.isupper() else 1 if old[0].isupper() else 2), old


def write() -> None:
    for module in NAMES:
        path = path_of(module)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text_of(module))


if __name__ == "__main__":
    write()
