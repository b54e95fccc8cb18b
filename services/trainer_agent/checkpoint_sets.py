"""Which files of a checkpoint folder belong together at a moment at which a script may be writing any of them. Pure.

A file is taken once it has been quiet: the same at two looks. TensorFlow's own checkpoints need no wait: their index, the text file
`checkpoint`, is replaced in one go after the files that it names were written. A file that is younger than its index is being written again.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

INDEX = "checkpoint"
_NAMED = re.compile(r'^(\s*(?:model_checkpoint_path|all_model_checkpoint_paths):\s*)"((?:[^"\\]|\\.)*)"', re.MULTILINE)
_SHARD = re.compile(r"\.data-(\d{5})-of-(\d{5})\Z")


@dataclass(frozen=True)
class Seen:
    """A file at a look: while all of it stays the same, so does the content."""

    size: int
    mtime_ns: int
    inode: int


def is_index(path: str) -> bool:
    return posixpath.basename(path) == INDEX


def quiet(before: Mapping[str, Seen], now: Mapping[str, Seen]) -> frozenset[str]:
    return frozenset(path for path, seen in now.items() if before.get(path) == seen)


def chosen(now: Mapping[str, Seen], quiet: Collection[str], indexes: Mapping[str, str], folder: str) -> list[str] | None:
    """What can be saved now, an index behind what it names; None: an index names a checkpoint that is not whole, so nothing can.

    The keys of `now` and of `indexes` (whose values are their contents) are relative to `folder`, an absolute path.
    """

    def whole(index: str, prefix: str) -> list[str]:
        """Empty where a file is missing, or younger than its index and not quiet."""
        files = _files(prefix, now)
        written = index in now and all(it in quiet or now[it].mtime_ns <= now[index].mtime_ns for it in files)
        return files if written else []

    taken, leads_out = set(quiet), set[str]()
    for index, content in indexes.items():
        names = [_below(folder, index, name) for _, name in _NAMED.findall(content)]
        if not names:
            continue
        newest, *others = names
        if newest is None:
            leads_out.add(index)
            continue
        if not (files := whole(index, newest)):
            return None
        taken |= {index, *files, *(file for other in others if other for file in whole(index, other))}
    return sorted(taken - leads_out, key=lambda path: (is_index(path), path))


def with_names_of(content: str, is_there: Callable[[str], bool]) -> str:
    """An index that was written on another node: an absolute path becomes the name alone, where the checkpoint lies beside the index."""

    def beside(found: re.Match[str]) -> str:
        name = posixpath.basename(found[2])
        return f'{found[1]}"{name}"' if posixpath.isabs(found[2]) and is_there(name) else found[0]

    return _NAMED.sub(beside, content)


def _below(folder: str, index: str, name: str) -> str | None:
    """The path of a checkpoint that an index names; None where it lies elsewhere."""
    path = posixpath.normpath(posixpath.join(folder, posixpath.dirname(index), name))
    return posixpath.relpath(path, folder) if path.startswith(f"{folder}/") else None


def _files(prefix: str, paths: Collection[str]) -> list[str]:
    """Of a checkpoint; empty where one is missing."""
    shards = {path: found for path in paths if path.startswith(f"{prefix}.data-") and (found := _SHARD.search(path, len(prefix)))}
    counts = {int(found[2]) for found in shards.values()}
    if f"{prefix}.index" in paths and any(len([it for it in shards.values() if int(it[2]) == count]) == count for count in counts):
        return [f"{prefix}.index", *shards]
    # TensorFlow's first format is one file.
    return [prefix] if prefix in paths else []
