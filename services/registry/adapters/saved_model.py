"""What a saved_model.pb says of itself, read without TensorFlow: by a private pool of descriptors that knows the few fields it takes."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from services.registry.adapters.graph_walk import operations
from services.registry.adapters.wire_count import has_more_than
from services.registry.domain.reading import Reading
from trainyard.model.v1.model_pb2 import Signature, TensorSpec

MOST_BYTES, MOST_PARTS = 64 << 20, 2_000_000
_SURELY_SMALL = 1 << 20
_SIGNATURES, _TENSORS, _TAGS, _TEXT, _SIGNATURE_BYTES = 100, 1000, 100, 255, 100_000
_INITIALIZER = "__saved_model_init_op"
_TYPES = {
    **dict(
        enumerate(
            [
                "float32",
                "float64",
                "int32",
                "uint8",
                "int16",
                "int8",
                "string",
                "complex64",
                "int64",
                "bool",
                "qint8",
                "quint8",
                "qint32",
                "bfloat16",
                "qint16",
            ],
            1,
        )
    ),
    **dict(
        enumerate(
            ["quint16", "uint16", "complex128", "float16", "resource", "variant", "uint32", "uint64", "float8_e5m2", "float8_e4m3fn"], 16
        )
    ),
}
# name -> fields: (name, number, kind); a kind with a dot before it is a message, one with "*" is repeated, "map:" a map from strings.
_MESSAGES: dict[str, list[tuple[str, int, str]]] = {
    "SavedModel": [("meta_graphs", 2, "*.MetaGraph")],
    "MetaGraph": [
        ("info", 1, ".Info"),
        ("graph", 2, ".Graph"),
        ("saver", 3, ".Saver"),
        ("collections", 4, "map:Collection"),
        ("signatures", 5, "map:SignatureDef"),
    ],
    "Info": [("tags", 4, "*string")],
    "Saver": [("restores", 3, "string")],
    "Collection": [("nodes", 1, ".Names")],
    "Names": [("names", 1, "*string")],
    "Graph": [("nodes", 1, "*.Node"), ("library", 2, ".Library")],
    "Library": [("functions", 1, "*.Function"), ("gradients", 2, "*.Gradient")],
    "Gradient": [("function", 1, "string"), ("gradient", 2, "string")],
    "Function": [("declared", 1, ".Called"), ("nodes", 3, "*.Node"), ("attributes", 5, "map:Attribute")],
    "Called": [("name", 1, "string")],
    "Node": [("name", 1, "string"), ("op", 2, "string"), ("inputs", 3, "*string"), ("attributes", 5, "map:Attribute")],
    "Attribute": [("text", 2, "bytes"), ("list", 1, ".Attributes"), ("function", 10, ".Called")],
    "Attributes": [("functions", 9, "*.Called")],
    "SignatureDef": [("inputs", 1, "map:Tensor"), ("outputs", 2, "map:Tensor"), ("method", 3, "string")],
    "Tensor": [
        ("name", 1, "string"),
        ("type", 2, "int32"),
        ("shape", 3, ".Shape"),
        ("sparse", 4, ".Sparse"),
        ("composite", 5, ".Composite"),
    ],
    "Sparse": [("values", 1, "string"), ("indices", 2, "string"), ("shape", 3, "string")],
    "Composite": [("components", 2, "*.Tensor")],
    "Shape": [("dims", 2, "*.Dim"), ("any_rank", 3, "bool")],
    "Dim": [("size", 1, "int64")],
}


def read(content: bytes, risky: Collection[str]) -> Reading:
    """`risky` are the names of operations to look for. What cannot be read is a warning: the server that loads it says the rest."""
    if len(content) > _SURELY_SMALL and has_more_than(MOST_PARTS, content, _parts(), "SavedModel"):
        return Reading(warnings=(f"saved_model.pb has more than {MOST_PARTS} parts: neither signatures nor operations are read.",))
    try:
        model = _pool()("SavedModel").FromString(content)
    except DecodeError:
        return Reading(warnings=("saved_model.pb is no SavedModel that can be read: no server will load it.",))
    if not model.meta_graphs:
        return Reading(warnings=("saved_model.pb holds no graph: no server will load it.",))
    signatures, warnings = _signatures(_serving(model.meta_graphs))
    found = sorted({op for graph in model.meta_graphs for op in operations(graph)} & set(risky))
    if found:
        warnings.append(
            f"Its graph has {', '.join(found)}: it reads or writes files or runs Python wherever it is loaded. No endpoint takes it."
        )
    tag_sets = tuple(",".join(tag[:_TEXT] for tag in graph.info.tags[:_TAGS]) for graph in model.meta_graphs[:_TAGS])
    return Reading(tuple(signatures), tag_sets, tuple(found), tuple(warnings))


def too_large(size: int) -> Reading:
    return Reading(warnings=(f"saved_model.pb has {size} bytes; of more than {MOST_BYTES} neither signatures nor operations are read.",))


def _serving(graphs: Any) -> Any:
    """The one that servers take, or the first."""
    return next((graph for graph in graphs if list(graph.info.tags) == ["serve"]), graphs[0])


def _signatures(graph: Any) -> tuple[list[Signature], list[str]]:
    """(by name, warnings)."""
    names = sorted(name for name in graph.signatures if name != _INITIALIZER)
    if not names:
        return [], ["The SavedModel has no signature: nothing can be asked of it. Save it with signatures=, or by model.export(folder)."]
    found = []
    room = _SIGNATURE_BYTES
    for name in names[:_SIGNATURES]:
        signature = graph.signatures[name]
        told = Signature(
            name=name[:_TEXT], method=signature.method[:_TEXT], inputs=_tensors(signature.inputs), outputs=_tensors(signature.outputs)
        )
        room -= told.ByteSize()
        if room < 0:
            break
        found.append(told)
    left = len(names) - len(found)
    return found, [f"{left} of its {len(names)} signatures are too many or too large to be shown."] if left else []


def _tensors(tensors: Any) -> Iterable[TensorSpec]:
    for key in sorted(tensors)[:_TENSORS]:
        tensor = tensors[key]
        # References count as what they refer to.
        kind = tensor.type - 100 if tensor.type > 100 else tensor.type
        yield TensorSpec(
            name=key[:_TEXT],
            type=_TYPES.get(kind, f"dtype {tensor.type}"),
            shape=[dim.size for dim in tensor.shape.dims[:_TAGS]],
            any_rank=tensor.shape.any_rank or not tensor.HasField("shape"),
            tensor=tensor.name[:_TEXT],
        )


@cache
def _parts() -> dict[str, dict[int, str]]:
    """As `has_more_than` takes it. An entry of a map is a message of its own."""
    found: dict[str, dict[int, str]] = {}
    for name, fields in _MESSAGES.items():
        found[name] = {}
        for field, number, kind in fields:
            if kind.startswith("map:"):
                entry = f"{name}.{field}"
                found[name][number], found[entry] = entry, {1: "", 2: kind.removeprefix("map:")}
            elif "." in kind:
                found[name][number] = kind.partition(".")[2]
            elif kind.endswith("string"):
                found[name][number] = ""
    return found


@cache
def _pool() -> Any:
    """name -> message class. Whatever else a message holds is passed over."""
    file = descriptor_pb2.FileDescriptorProto(name="saved_model.proto", package="read", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            _add_field(message, name, field, number, kind)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return lambda name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"read.{name}"))


def _add_field(message: Any, owner: str, field: str, number: int, kind: str) -> None:
    added = message.field.add(name=field, number=number, label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL)
    repeated = kind.startswith("*") or kind.startswith("map:")
    if repeated:
        added.label = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
    if kind.startswith("map:"):
        entry = "".join(part.capitalize() for part in field.split("_")) + "Entry"
        nested = message.nested_type.add(name=entry)
        nested.options.map_entry = True
        _add_field(nested, entry, "key", 1, "string")
        _add_field(nested, entry, "value", 2, f".{kind.removeprefix('map:')}")
        added.type, added.type_name = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE, f".read.{owner}.{entry}"
    elif "." in kind:
        added.type, added.type_name = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE, f".read.{kind.partition('.')[2]}"
    else:
        added.type = descriptor_pb2.FieldDescriptorProto.Type.Value(f"TYPE_{kind.removeprefix('*').upper()}")
