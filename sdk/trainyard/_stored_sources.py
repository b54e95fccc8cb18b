"""Datastore sources of a dataset: "datastore://<datastore>/<path>", where the path is a file, a folder or a glob with *, ? and **.

Pure but for the listing that is given; the client and the dataset service expand sources by the same code. On a node a file lies at its
path below the folder named, as Azure ML has it: for 'mnist/*.gz' that is below 'mnist'; of several sources in one datastore, below the
folder that they have in common.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from trainyard._datastore_files import StoredFile, checked_name
from trainyard._errors import UserErrorException
from trainyard._glob import Part, Wild, matcher
from trainyard._paths import safe_relpath

SCHEME = "datastore://"

_WILD: dict[str, Part] = {"**/": Wild.FOLDERS, "**": Wild.ANY, "*": Wild.STAR, "?": "[^/]"}

Listing = Callable[[str, str], Iterable[StoredFile]]
"""(datastore, beginning of the path) -> its files, sorted by path."""


@dataclass(frozen=True)
class Source:
    datastore: str
    path: str
    """"" or ending in "/": a folder; with * or ?: a glob; else a file, or a folder of that name."""

    @property
    def url(self) -> str:
        return f"{SCHEME}{self.datastore}/{self.path}"

    @property
    def is_glob(self) -> bool:
        return "*" in self.path or "?" in self.path

    @property
    def fixed(self) -> str:
        """The folder before the first wildcard, ending in "/" or empty."""
        head = re.split(r"[*?]", self.path, maxsplit=1)[0]
        return head[: head.rfind("/") + 1]


def is_stored(url: str) -> bool:
    return url.startswith(SCHEME)


def parse(url: str) -> Source:
    """Raises UserErrorException for "..", absolute paths, odd characters, and names that are none."""
    datastore, _, path = url.removeprefix(SCHEME).partition("/")
    checked_name(datastore)
    plain = re.sub(r"[*?]", "x", path.removesuffix("/"))
    if plain:
        safe_relpath(plain)
    return Source(datastore, path)


def expand(urls: Sequence[str], listing: Listing, message: type[Any]) -> list[Any]:
    """The SourceFiles (`message`) of these sources, each file once, in the order of the sources and by path within one.

    Raises UserErrorException, whose target is the URL at fault, for a source with no file.
    """
    sources = [parse(url) for url in urls]
    found = [(source, *_files(source, listing)) for source in sources]
    bases: dict[str, list[str]] = {}
    for source, base, _ in found:
        bases.setdefault(source.datastore, []).append(base)
    common = {datastore: _common(folders) for datastore, folders in bases.items()}
    listed: dict[tuple[str, str], Any] = {}
    for source, _, files in found:
        for file in files:
            listed.setdefault(
                (source.datastore, file.path),
                message(
                    url=f"{SCHEME}{source.datastore}/{file.path}",
                    path=file.path.removeprefix(common[source.datastore]),
                    size_bytes=file.size,
                    sha256=file.sha256,
                    object_key=file.object_key,
                ),
            )
    _refuse_clashes(list(listed.values()))
    return list(listed.values())


def _files(source: Source, listing: Listing) -> tuple[str, list[StoredFile]]:
    """(the folder that is left off on a node, the files)"""
    if source.is_glob:
        matches = _matcher(source.path)
        files = [file for file in listing(source.datastore, source.fixed) if matches(file.path)]
        if files:
            return source.fixed, files
        raise _none(source, listing)
    folder = source.path.removesuffix("/")
    there = list(listing(source.datastore, folder))
    if not source.path.endswith("/") and (one := [file for file in there if file.path == source.path]):
        return source.path[: source.path.rfind("/") + 1], one
    base = f"{folder}/" if folder else ""
    files = [file for file in there if file.path.startswith(base)]
    if not files:
        raise _none(source, listing)
    return base, files


def _none(source: Source, listing: Listing) -> UserErrorException:
    near = [file.path for file in listing(source.datastore, source.fixed)][:5] or [file.path for file in listing(source.datastore, "")][:5]
    has = ", ".join(near) if near else "nothing"
    what = f"The datastore {source.datastore!r} has no file {source.path!r}; it has: {has}."
    return UserErrorException(what, target=source.url[:1000], hint="upload it first, or correct the path")


def _matcher(glob: str) -> Callable[[str], bool]:
    """`*` and `?` stay within a folder, `**/` is any number of folders, a trailing `**` or `/` is all below."""
    pattern = glob + "**" if glob.endswith("/") else glob
    parts: list[Part] = []
    for word in re.split(r"(\*\*/|\*\*|\*|\?)", pattern):
        parts += [_WILD[word]] if word in _WILD else map(re.escape, word)
    return matcher(parts)


def _common(folders: Sequence[str]) -> str:
    parts = [folder.split("/")[:-1] for folder in folders]
    shared: list[str] = []
    for names in zip(*parts, strict=False):
        if len(set(names)) > 1:
            break
        shared.append(names[0])
    return "".join(f"{name}/" for name in shared)


def _refuse_clashes(files: Sequence[Any]) -> None:
    urls: dict[str, str] = {}
    for file in files:
        if urls.setdefault(file.path, file.url) != file.url:
            what = f"{urls[file.path]!r} and {file.url!r} would both lie at {file.path!r} on a node."
            raise UserErrorException(what, target=file.url[:1000], hint="make a dataset of each datastore")
    for path, url in urls.items():
        folder = next((path[:at] for at in range(len(path)) if path[at] == "/" and path[:at] in urls), None)
        if folder is not None:
            what = f"{url!r} would lie below {urls[folder]!r}, which is a file."
            raise UserErrorException(what, target=url[:1000], hint="choose one of them")
