"""Where a run's files go when they are downloaded. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from trainyard._errors import UserErrorException
from trainyard._paths import safe_relpath


def place_of(name: str, output_file_path: str | None) -> Path:
    """`output_file_path`: a file, or an existing folder, or one by its last "/"; without it the file's last name, here."""
    target = Path(output_file_path) if output_file_path else Path(Path(name).name)
    return target / Path(name).name if target.is_dir() or str(output_file_path or "").endswith("/") else target


def places_below(
    names: Iterable[str], prefix: str | None, output_directory: str | None, output_paths: list[str] | None, *, append_prefix: bool
) -> list[tuple[str, Path]]:
    """Of the names that begin with `prefix`, in their order. Raises UserErrorException where `output_paths` are not as many."""
    chosen = [name for name in names if not prefix or name.startswith(prefix)]
    if output_paths is not None and len(output_paths) != len(chosen):
        raise UserErrorException(f"output_paths names {len(output_paths)} files, {len(chosen)} match {prefix!r}.", target="output_paths")
    folder = Path(output_directory or ".")
    found = []
    for index, name in enumerate(chosen):
        local = name if append_prefix or not prefix else name[len(prefix) :].lstrip("/") or Path(name).name
        found.append((name, folder / (output_paths[index] if output_paths is not None else safe_relpath(local))))
    return found
