"""Whether a Keras archive, or a model's architecture as JSON, has Keras run code of its maker's. Read within limits, never loaded."""

from __future__ import annotations

import json
import stat
import struct
import zipfile
from typing import Any, BinaryIO

from trainyard._errors import UserErrorException
from trainyard._paths import safe_relpath

_CONFIG = "config.json"
_CONFIG_BYTES = 16 << 20
_DIRECTORY_BYTES = 16 << 20
_MEMBERS = 10_000
_RATIO, _SMALL = 200, 1 << 20
_END = b"PK\x05\x06"
_END_BYTES, _COMMENT_BYTES = 22, 65_535
# Whose modules Keras' own layers are in.
_OWN = ("keras", "keras_core", "keras_nlp", "keras_hub", "keras_cv", "tf_keras", "tensorflow.keras", "tensorflow.python.keras")
_UNSAFE_LAYER = (
    "has the layer {name!r}, a Lambda: its code would run when it is loaded; write it as a layer of its own, or export a SavedModel"
)
_UNSAFE_MODULE = "names {name!r} of the module {module!r}, which Keras would import and run; export a SavedModel by model.export(folder)"


def refused(file: BinaryIO) -> str:
    """Why this archive may not be registered, in words; "" if it may."""
    if why := _unreadable(file):
        return why
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if len(members) > _MEMBERS:
                return f"is an archive of {len(members)} members; {_MEMBERS} are the most"
            for member in members:
                if why := _unsafe_member(member):
                    return why
            if _CONFIG not in archive.namelist():
                return f"is no Keras archive: it has no {_CONFIG}"
            with archive.open(_CONFIG) as config:
                return _refused_config(config.read(_CONFIG_BYTES + 1))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, struct.error, ValueError) as error:
        return f"is no Keras archive that can be read: {type(error).__name__}: {str(error)[:200]}"


def refused_json(content: bytes) -> str:
    """As `refused`, of a JSON file that may be a model's architecture; "" for any other one."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return ""
    return _anything_unsafe(found) if isinstance(found, dict) and "class_name" in found and "config" in found else ""


def _refused_config(content: bytes) -> str:
    if len(content) > _CONFIG_BYTES:
        return f"has an architecture of more than {_CONFIG_BYTES >> 20} MiB"
    try:
        return _anything_unsafe(json.loads(content))
    except (ValueError, RecursionError) as error:
        return f"has an architecture that is no JSON: {type(error).__name__}"


def _anything_unsafe(config: Any) -> str:
    waiting = [config]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            if why := _unsafe(found):
                return why
            waiting.extend(found.values())
        elif isinstance(found, list):
            waiting.extend(found)
    return ""


def _unreadable(file: BinaryIO) -> str:
    """The directory of a zip is read as a whole: it must not be too large for that."""
    size = file.seek(0, 2)
    file.seek(max(0, size - _END_BYTES - _COMMENT_BYTES))
    tail = file.read(_END_BYTES + _COMMENT_BYTES)
    at = tail.rfind(_END)
    if at < 0 or len(tail) - at < _END_BYTES:
        return "is no Keras archive: it does not end as a zip does"
    (directory,) = struct.unpack("<L", tail[at + 12 : at + 16])
    file.seek(0)
    return f"is an archive with a directory of {directory} bytes; {_DIRECTORY_BYTES} are the most" if directory > _DIRECTORY_BYTES else ""


def _unsafe_member(member: zipfile.ZipInfo) -> str:
    name = member.orig_filename
    try:
        safe_relpath(name.removesuffix("/"))
    except UserErrorException:
        return f"is an archive whose member {name[:200]!r} would be written elsewhere"
    if stat.S_ISLNK(member.external_attr >> 16):
        return f"is an archive whose member {name[:200]!r} is a link"
    if member.flag_bits & 1:
        return f"is an archive whose member {name[:200]!r} is encrypted"
    if member.file_size > max(_SMALL, _RATIO * member.compress_size):
        return f"is an archive whose member {name[:200]!r} inflates {member.compress_size} bytes to {member.file_size}"
    return ""


def _unsafe(found: dict[str, Any]) -> str:
    kind = str(found.get("class_name", "")).rpartition(">")[2]
    config = found.get("config")
    name = str(config.get("name", kind) if isinstance(config, dict) else config or kind)[:200]
    if kind in ("Lambda", "__lambda__"):
        return _UNSAFE_LAYER.format(name=name)
    module = found.get("module")
    if (
        "class_name" in found
        and isinstance(module, str)
        and module
        and not any(module == own or module.startswith(f"{own}.") for own in _OWN)
    ):
        # Keras tells its own functions apart by a name that is registered; any other is imported.
        return _UNSAFE_MODULE.format(name=name, module=module[:200])
    return ""
