"""Files of a run's source that Python would import in place of the packages of the same name."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

_PACKAGES = ("horovod", "tensorflow")


def what_shadows(code: Path, entry_script: str) -> str:
    """The path, inside the source, of a file that stands before horovod or tensorflow for the entry script; "" where none does."""
    folder = PurePosixPath(entry_script).parent
    for name in _PACKAGES:
        for path in (folder / f"{name}.py", folder / name / "__init__.py"):
            if code.joinpath(path).is_file():
                return str(path)
    return ""
