"""docs/events.md, from the protos and topics.yaml: `python -m deploy.local events` writes it, a test compares it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorSet

REPO = Path(__file__).resolve().parents[1]
PAGE = REPO / "docs" / "events.md"
_MESSAGES, _FIELDS = 4, 2

_HEAD = """\
# Events

Generated from `protos/` and `deploy/topics.yaml` by `make protos`. Do not edit.

Every event is a Kafka record in CloudEvents binary mode: the value is the bare protobuf message, the headers say what it is. The key is the id of
what the event is about; order holds within a key. Requests may be published by anyone, by gRPC or straight to the topic; facts are told by the
topic's owner. What the owner cannot read goes to `trainyard.deadletters`. Unknown types and fields are ignored: newer writers may send more.

| header | meaning |
|---|---|
| `ce_specversion` | `1.0` |
| `ce_id` | unique; an event that is sent again keeps it, and is handled once |
| `ce_source` | who published it, e.g. `trainyard/scheduler` |
| `ce_type` | full name of the message, e.g. `trainyard.job.v1.RunQueued` |
| `ce_time` | RFC 3339, by the publisher's clock |
| `ce_subject` | the key |
| `ce_causationid` | id of the event that this one follows from; absent where nothing on the log caused it |
| `ce_correlationid` | what belongs together, mostly the run id |
| `ce_sequence` | grows with every event of one source, over all topics; a service's replay folds its own events in this order |
| `traceparent` | W3C trace context, passed on |
| `content-type` | `application/protobuf` |
"""


class Comments:
    """Comments and messages of a descriptor set, by full name."""

    def __init__(self, descriptors: bytes) -> None:
        self.messages: dict[str, Any] = {}
        self.comments: dict[str, str] = {}
        self.fields: dict[tuple[str, int], str] = {}
        for file in FileDescriptorSet.FromString(descriptors).file:
            if not file.package.startswith("trainyard."):
                continue
            for message in file.message_type:
                self.messages[f"{file.package}.{message.name}"] = message
            for location in file.source_code_info.location:
                path = list(location.path)
                text = " ".join((location.leading_comments or location.trailing_comments).split())
                if len(path) == 2 and path[0] == _MESSAGES:
                    self.comments[f"{file.package}.{file.message_type[path[1]].name}"] = text
                elif len(path) == 4 and (path[0], path[2]) == (_MESSAGES, _FIELDS):
                    self.fields[f"{file.package}.{file.message_type[path[1]].name}", path[3]] = text


def page(descriptors: bytes) -> str:
    """The whole page."""
    known = Comments(descriptors)
    data = yaml.safe_load((REPO / "deploy" / "topics.yaml").read_text())
    lines = [_HEAD, "| topic | key | partitions | kept | owner |", "|---|---|---|---|---|"]
    for name, topic in data["topics"].items():
        link = name.replace(".", "")
        lines.append(f"| [{name}](#{link}) | {topic['key']} | {topic['partitions']} | {topic['retention']} | {topic['owner']} |")
    for name in data["topics"]:
        lines += ["", f"## {name}"]
        for kind in ("requests", "facts"):
            for short in data["messages"][name].get(kind, ()):
                lines += ["", *_message(known, f"trainyard.{short}", kind.rstrip("s"))]
    lines += ["", "## Parts of messages"]
    told = [f"trainyard.{short}" for kinds in data["messages"].values() for names in kinds.values() for short in names]
    for full_name in _parts(known, told):
        lines += ["", *_message(known, full_name, "part")]
    return "\n".join(lines) + "\n"


def _parts(known: Comments, told: list[str]) -> list[str]:
    """Messages that those refer to, directly or not, by name."""
    found: set[str] = set()
    open_ones = list(told)
    while open_ones:
        message = known.messages[open_ones.pop()]
        fields = [*message.field, *(field for nested in message.nested_type for field in nested.field)]
        names = {field.type_name.removeprefix(".") for field in fields}
        new = {name for name in names if name in known.messages} - found - set(told)
        found |= new
        open_ones += sorted(new)
    return sorted(found)


def _message(known: Comments, full_name: str, kind: str) -> Iterator[str]:
    message = known.messages[full_name]
    yield f"### {message.name} ({kind})"
    yield ""
    yield f"`{full_name}`. {known.comments.get(full_name, '')}".rstrip()
    if message.field:
        yield ""
        yield "| field | type | meaning |"
        yield "|---|---|---|"
    for index, field in enumerate(message.field):
        text = known.fields.get((full_name, index), "").replace("|", "\\|")
        yield f"| `{field.name}` | {_type(message, field)} | {text} |"


def _type(message: Any, field: Any) -> str:
    many = field.label == FieldDescriptorProto.LABEL_REPEATED
    if field.type_name:
        entry = next((it for it in message.nested_type if it.options.map_entry and field.type_name.endswith(f".{it.name}")), None)
        if entry is not None:
            return f"map of {_type(entry, entry.field[0])} to {_type(entry, entry.field[1])}"
        name = field.type_name.removeprefix(".").removeprefix("trainyard.").removeprefix("google.protobuf.")
    else:
        name = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    return f"list of {name}" if many else name


def write(descriptors: bytes) -> None:
    PAGE.write_text(page(descriptors))
