"""Sets of files in the object store: listed in the event itself, or, where the list is long, in an object that the event names."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from trainyard._errors import TrainyardException, UserErrorException

if TYPE_CHECKING:
    from trainyard._objects import Objects

# An event holds a megabyte, and other things than this list.
MOST_BYTES_IN_EVENT = 300_000
MOST_ENTRIES_IN_LIST, MOST_BYTES_IN_LIST = 100_000, 64 << 20
"""Of a snapshot or an input: whoever reads its list holds it in memory, and each entry becomes a file."""


def for_event(objects: Objects, prefix: str, files: Any, sharers: int = 1) -> Any:
    """The ArtifactSet itself if it is short; else one that names an object below `prefix`, which is written here.

    sharers: how many such sets are to fit one event together.
    """
    from trainyard.event.v1.artifact_pb2 import ArtifactSet

    if files.ByteSize() <= MOST_BYTES_IN_EVENT // max(1, sharers):
        return files
    content = files.SerializeToString(deterministic=True)
    digest = hashlib.sha256(content).hexdigest()
    key = f"{prefix}/manifests/{digest}"
    objects.put_bytes(key, content)
    return ArtifactSet(manifest_key=key, manifest_sha256=digest, count=len(files.files))


def together(*sets: Any) -> Any:
    """All of them as one set; of two files with one path the earlier set's counts. Lists that lie elsewhere are named beside each other."""
    from trainyard.event.v1.artifact_pb2 import ArtifactList, ArtifactSet

    parts = [part for files in sets for part in (files, *files.parts) if part.files or part.manifest_key]
    if any(part.manifest_key for part in parts):
        if len(parts) == 1:
            (only,) = parts
            return ArtifactSet(manifest_key=only.manifest_key, manifest_sha256=only.manifest_sha256, count=only.count)
        return ArtifactSet(
            parts=[
                ArtifactList(files=part.files, manifest_key=part.manifest_key, manifest_sha256=part.manifest_sha256, count=part.count)
                for part in parts
            ]
        )
    found = {file.path: file for part in reversed(parts) for file in part.files}
    return ArtifactSet(files=[found[path] for path in sorted(found)])


def listed(files: Any) -> dict[str, Any]:
    """Artifacts by path, of those that the message itself lists; of two with one path the earlier counts."""
    return {file.path: file for part in reversed((files, *files.parts)) for file in part.files}


def is_listed(files: Any) -> bool:
    """All of the set is in the message: nothing needs to be read."""
    return not files.manifest_key and not files.parts


def count(files: Any) -> int:
    """How many files there are, without reading a list that lies elsewhere; parts count as if no path were in two."""
    return sum(len(part.files) + int(part.count) for part in (files, *files.parts))


def resolve(objects: Objects, files: Any) -> Any:
    """The same set with every file listed, sorted by path.

    Raises ObjectMissing where the list is gone, TrainyardException where it is not what its digest says.
    """
    from trainyard.event.v1.artifact_pb2 import ArtifactSet

    if is_listed(files):
        return files
    found: dict[str, Any] = {}
    for part in reversed((files, *files.parts)):
        listed = _read(objects, part).files if part.manifest_key else part.files
        found.update({file.path: file for file in listed})
    return ArtifactSet(files=[found[path] for path in sorted(found)])


def _read(objects: Objects, files: Any) -> Any:
    from trainyard.event.v1.artifact_pb2 import ArtifactSet

    content = objects.get_bytes(files.manifest_key)
    if hashlib.sha256(content).hexdigest() != files.manifest_sha256:
        what = f"The list of files {files.manifest_key} in the object store is not what was written: its digest differs."
        raise TrainyardException(what, code="WrongDigest", target=files.manifest_key)
    return parsed(ArtifactSet, content, files.manifest_key)


def put_list(objects: Objects, prefix: str, message: Any) -> tuple[str, str]:
    """Writes a Snapshot's or Dataset's list of files under the name of its content; returns its key and SHA-256.

    Raises UserErrorException for a list that no node would read.
    """
    content = message.SerializeToString(deterministic=True)
    if (trouble := _too_long(len(content), _entries(message))) is not None:
        raise UserErrorException(f"The list of files {trouble}. {_PACK}", code="ListTooLong", target="files")
    digest = hashlib.sha256(content).hexdigest()
    objects.put_bytes(f"{prefix}/{digest}", content)
    return f"{prefix}/{digest}", digest


def read_list(objects: Objects, kind: type[Any], key: str, sha256: str) -> Any:
    """What `put_list` wrote. A request may name any object there is: how large it is is asked for before it is read.

    Raises ObjectMissing, and TrainyardException where it is too long, not what its digest says, or no such list.
    """
    if (trouble := _too_long(objects.size(key))) is not None:
        raise TrainyardException(f"The list of files {key} {trouble}. {_PACK}", code="ListTooLong", target=key)
    content = objects.get_bytes(key)
    if hashlib.sha256(content).hexdigest() != sha256:
        what = f"The list of files {key} in the object store is not what was written: its digest differs."
        raise TrainyardException(what, code="WrongDigest", target=key)
    found = parsed(kind, content, key)
    if (trouble := _too_long(0, _entries(found))) is not None:
        raise TrainyardException(f"The list of files {key} {trouble}. {_PACK}", code="ListTooLong", target=key)
    return found


_PACK = "Pack the files into fewer, into archives for example."


def _too_long(size: int, entries: int = 0) -> str | None:
    if size > MOST_BYTES_IN_LIST:
        return f"takes {size} bytes, and {MOST_BYTES_IN_LIST} is the most"
    return f"has {entries} entries, and {MOST_ENTRIES_IN_LIST} is the most" if entries > MOST_ENTRIES_IN_LIST else None


def _entries(message: Any) -> int:
    return len(message.files) + len(getattr(message, "empty_folders", ()))


def parsed(kind: type[Any], content: bytes, key: str) -> Any:
    """The message that an object holds. Raises TrainyardException where it holds none: digests are made of anything."""
    from google.protobuf.message import DecodeError

    try:
        return kind.FromString(content)
    except DecodeError as error:
        raise TrainyardException(f"{key} in the object store holds no list of files.", code="WrongContent", target=key) from error
