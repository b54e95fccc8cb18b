"""A dataset's files as they travel: listed in the message, or, where they are many, in an object of the store that the message names.

The client, the dataset service and the nodes read lists by this code alone: what is wrong with one is one error, wherever it is met.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from trainyard._artifacts import MOST_ENTRIES_IN_LIST, put_list, read_list
from trainyard._errors import TrainyardException, UserErrorException
from trainyard._paths import SHA256, safe_relpath

if TYPE_CHECKING:
    from trainyard._objects import Objects

MOST_BYTES_IN_MESSAGE = 200_000
_PREFIX = "datastores/manifests"


def fault(item: Any) -> str:
    """What is wrong with a message's name of a list, without a look at the list; "" if nothing is."""
    if not SHA256.match(item.manifest_sha256) or item.manifest_key != f"{_PREFIX}/{item.manifest_sha256}":
        return f"manifest_key is not '{_PREFIX}/<manifest_sha256>'"
    return ""


def put(objects: Objects, files: Iterable[Any]) -> tuple[str, str, int]:
    """Writes the list of these SourceFiles; what messages call its manifest_key, manifest_sha256 and count.

    Raises UserErrorException for a list that is too long.
    """
    from trainyard.dataset.v1.dataset_pb2 import Dataset

    whole = Dataset(files=files)
    return *put_list(objects, _PREFIX, whole), len(whole.files)


def of(objects: Objects, item: Any) -> list[Any]:
    """The SourceFiles of a message that lists them or names their list; each of a list has a path of its own below its folder.

    Raises ObjectMissing, and TrainyardException for a list that is too long, not as its digest says, or that no folder can hold.
    """
    if not item.manifest_key:
        return list(item.files)
    files = _read(objects, item)
    if trouble := _wrong_paths([file.path for file in files]):
        what = f"The list of files {item.manifest_key[:200]} cannot be used: {trouble}"
        raise TrainyardException(what, code="WrongContent", target=item.manifest_key[:200], hint="register the dataset again")
    return files


def urls_of(objects: Objects, request: Any) -> Sequence[str]:
    """The URLs of a RegisterDataset, which are all that counts of a list that it names. Raises as `of`."""
    return [file.url for file in _read(objects, request)] if request.manifest_key else request.urls


def _read(objects: Objects, item: Any) -> list[Any]:
    from trainyard.dataset.v1.dataset_pb2 import Dataset

    # By the digest, which whoever took the message has looked at: what a message calls a key may be anything.
    return list(read_list(objects, Dataset, f"{_PREFIX}/{item.manifest_sha256}", item.manifest_sha256).files)


def _wrong_paths(paths: Sequence[str]) -> str:
    seen: set[str] = set()
    for path in paths:
        try:
            safe_relpath(path)
        except UserErrorException as error:
            return error.message
        if path in seen:
            return f"two of its files have the path {path!r}."
        seen.add(path)
    return next((f"{path!r} lies below {above!r}, which is a file." for path in paths if (above := _file_above(path, seen))), "")


def _file_above(path: str, files: set[str]) -> str:
    return next((path[:at] for at, char in enumerate(path) if char == "/" and path[:at] in files), "")


__all__ = ["MOST_BYTES_IN_MESSAGE", "MOST_ENTRIES_IN_LIST", "fault", "of", "put", "urls_of"]
