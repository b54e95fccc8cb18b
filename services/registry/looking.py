"""One file of a model that is to be registered: is it in the object store as it was recorded, and may a model hold it."""

from __future__ import annotations

import hashlib
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from trainyard import _keras_archive
from trainyard._errors import UserErrorException
from trainyard._model_contents import HEAD_BYTES, by_head, by_name, is_keras, may_be_keras_config
from trainyard._objects import ObjectMissing, Objects
from trainyard._paths import safe_relpath, sha256_file
from trainyard.event.v1.artifact_pb2 import Artifact

_CONFIG_BYTES = 64 << 20
_SMALL = 1 << 20
_LAMBDA = b'"class_name": "Lambda"'


@dataclass(frozen=True)
class Looked:
    """In words; "" where there is nothing to say. `refused` goes on after the file's name."""

    path: str
    trouble: str = ""
    refused: str = ""
    warning: str = ""


def look_at(objects: Objects, file: Artifact, *, every_byte: bool) -> Looked:
    """`every_byte`: its digest is checked too. Raises PlatformUnavailableException."""
    if why := by_name(file.path):
        return Looked(file.path, refused=why)
    try:
        safe_relpath(file.object_key)
    except UserErrorException:
        return Looked(file.path, f"{file.object_key[:200]!r} is no key of the object store")
    try:
        head = _beginning(objects, file.object_key, _SMALL + 1 if file.size_bytes <= _SMALL else HEAD_BYTES)
        # A small file is here as a whole, and needs no second question.
        size = len(head) if len(head) <= _SMALL and file.size_bytes <= _SMALL else objects.size(file.object_key)
        if size != file.size_bytes:
            return Looked(file.path, f"{file.object_key} has {size} bytes, not {file.size_bytes}")
        if every_byte and size <= _SMALL and (found := hashlib.sha256(head).hexdigest()) != file.sha256:
            return Looked(file.path, _other_bytes(file, found))
        head = head[:HEAD_BYTES]
        every_byte = every_byte and size > _SMALL
        whole = every_byte or is_keras(file.path) or (may_be_keras_config(file.path, head) and size <= _CONFIG_BYTES)
        trouble, refused = _wrong_with(objects, file, head, every_byte) if whole else ("", "")
    except ObjectMissing:
        return Looked(file.path, f"{file.object_key} is missing")
    warning = ""
    if file.path.endswith("/keras_metadata.pb") and _LAMBDA in head:
        warning = f"{file.path} tells of a Lambda layer: a server runs the graph alone, Keras would run the layer's code."
    return Looked(file.path, trouble, refused or by_head(file.path, head, size), warning)


def _beginning(objects: Objects, key: str, most: int) -> bytes:
    found = b""
    with closing(objects.read(key)) as blocks:  # type: ignore[type-var]  # a generator, which ends the transfer when it is closed
        for block in blocks:
            found += block
            if len(found) >= most:
                break
    return found[:most]


def _other_bytes(file: Artifact, found: str) -> str:
    return f"{file.object_key} has the digest {found}, not {file.sha256}"


def _wrong_with(objects: Objects, file: Artifact, head: bytes, every_byte: bool) -> tuple[str, str]:
    """(trouble, refused) by all of its bytes."""
    with tempfile.TemporaryDirectory(prefix="trainyard-registry-") as folder:
        copy = Path(folder) / "file"
        objects.get_file(file.object_key, copy)
        if every_byte and (found := sha256_file(copy)) != file.sha256:
            return _other_bytes(file, found), ""
        if is_keras(file.path):
            with copy.open("rb") as content:
                return "", by_head(file.path, head, file.size_bytes) or _keras_archive.refused(content)
        if may_be_keras_config(file.path, head):
            return "", _keras_archive.refused_json(copy.read_bytes()) if copy.stat().st_size <= _CONFIG_BYTES else ""
    return "", ""
