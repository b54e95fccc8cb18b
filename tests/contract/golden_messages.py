"""Golden bytes: one example of every message that travels on a topic, as it was first written. Logs are kept for ever, so an old
record must always be read as what it meant.

python -m tests.contract.golden_messages    writes what is missing, and never touches what is there
"""

from __future__ import annotations

import importlib
import json
import zlib
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from services.chassis.topics import topics
from trainyard import _cloudevents

FOLDER = Path(__file__).parent / "golden"


def travelling() -> dict[str, type[Message]]:
    """By full name: messages of the topics' packages that are neither a part of another one nor a call's envelope."""
    packages = {package for topic in topics().values() for package in topic.packages}
    files = [importlib.import_module(f"trainyard.{module}").DESCRIPTOR for module in _cloudevents._MODULES]
    everything = [kind for file in files if file.package in packages for kind in file.message_types_by_name.values()]
    parts = {field.message_type.full_name for kind in everything for field in _fields(kind) if field.message_type}
    return {
        kind.full_name: _cloudevents.message_class(kind.full_name)
        for kind in everything
        if kind.full_name not in parts and not kind.name.endswith(("Request", "Response"))
    }


def path_of(full_name: str) -> Path:
    return FOLDER / f"{full_name}.json"


def golden_text(message: Message) -> str:
    kept = {"message": json_format.MessageToDict(message), "hex": message.SerializeToString(deterministic=True).hex()}
    return json.dumps(kept, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def example(kind: type[Message]) -> Message:
    """Every field set, each to something of its own; the same for ever."""
    message = kind()
    _fill(message, kind.DESCRIPTOR.name, 0)
    return message


def _fields(kind: Descriptor) -> list[FieldDescriptor]:
    """Those of nested types, map entries among them, included."""
    return [*kind.fields, *(field for nested in kind.nested_types for field in _fields(nested))]


def _fill(message: Message, path: str, index: int) -> None:
    if message.DESCRIPTOR.full_name == "google.protobuf.Timestamp":
        json_format.Parse(f'"2026-01-02T03:04:{_number(path) % 60:02}.5Z"', message)
        return
    if message.DESCRIPTOR.full_name == "google.protobuf.Duration":
        json_format.Parse(f'"{_number(path) % 1000}.25s"', message)
        return
    # Of a oneof, each element of a list takes another member, and a message alone one that depends on whose part it is.
    shift = len(path.partition(".")[0]) + index
    chosen = {oneof.fields[shift % len(oneof.fields)].name for oneof in message.DESCRIPTOR.oneofs}
    for field in message.DESCRIPTOR.fields:
        if field.containing_oneof is None or field.name in chosen:
            _set(message, field, f"{path}.{field.name}", index)


def _set(message: Any, field: Any, path: str, index: int) -> None:
    target = getattr(message, field.name)
    if field.message_type and field.message_type.GetOptions().map_entry:
        value = field.message_type.fields_by_name["value"]
        for number in range(2):
            if value.message_type:
                _fill(target[f"{path}.key{number}"], f"{path}.{number}", number)
            else:
                target[f"{path}.key{number}"] = _scalar(value, f"{path}.{number}", number)
    elif field.is_repeated and field.message_type:
        most = max([2, *(len(oneof.fields) for oneof in field.message_type.oneofs)])
        for number in range(most):
            _fill(target.add(), f"{path}.{number}", number)
    elif field.is_repeated:
        target.extend(_scalar(field, f"{path}.{number}", number) for number in range(2))
    elif field.message_type:
        target.SetInParent()
        _fill(target, path, index)
    else:
        setattr(message, field.name, _scalar(field, path, index))


def _scalar(field: Any, path: str, index: int) -> Any:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            return path.encode() if field.type == FieldDescriptor.TYPE_BYTES else f"{path} ü"
        case FieldDescriptor.CPPTYPE_BOOL:
            return True
        case FieldDescriptor.CPPTYPE_ENUM:
            values = field.enum_type.values
            return values[1 + index % (len(values) - 1)].number
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return _number(path) % 1000 + 0.5
        case FieldDescriptor.CPPTYPE_INT32 | FieldDescriptor.CPPTYPE_INT64:
            return -1 - _number(path) % 1000
        case FieldDescriptor.CPPTYPE_UINT64:
            return (1 << 40) + _number(path)
    return 1 + _number(path) % 1000


def _number(text: str) -> int:
    return zlib.crc32(text.encode())


def write_missing() -> list[str]:
    FOLDER.mkdir(exist_ok=True)
    missing = [name for name in sorted(travelling()) if not path_of(name).exists()]
    for name in missing:
        path_of(name).write_text(golden_text(example(travelling()[name])))
    return missing


if __name__ == "__main__":
    print("\n".join(write_missing()) or "none was missing")
