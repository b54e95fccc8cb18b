"""Messages as TensorFlow Serving writes them in JSON: the fields' own names, defaults written out, 64-bit numbers as strings."""

from __future__ import annotations

import base64
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

_LONG = frozenset(
    {
        FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_FIXED64, FieldDescriptor.TYPE_SFIXED64,
        FieldDescriptor.TYPE_SINT64,
    }
)  # fmt: skip


def to_json(message: Any) -> dict[str, Any]:
    """What json.dumps takes. Messages that are not there are left out, all else is written."""
    written: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            of = field.message_type.fields_by_name["value"]
            written[field.name] = {str(key): _one(of, value[key]) for key in sorted(value)}
        elif _is_list(message, field):
            written[field.name] = [_one(field, item) for item in value]
        elif not _has_presence(field) or message.HasField(field.name):
            written[field.name] = _one(field, value)
    return written


def _is_list(message: Any, field: Any) -> bool:
    """The descriptor's own word for it has changed between versions of protobuf."""
    default = getattr(type(message)(), field.name)
    return hasattr(default, "extend")


def _has_presence(field: Any) -> bool:
    return field.message_type is not None or field.containing_oneof is not None


def _one(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return to_json(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else value
    if field.type in _LONG:
        return str(value)
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value
