"""What is read of a saved_model.pb, which is built here field by field; real ones are read by the component tests."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.settings import Registry
from services.registry.adapters import saved_model
from services.registry.adapters.saved_model import read
from services.registry.adapters.wire_count import has_more_than

RISKY = Registry(operations=["ReadFile", "EagerPyFunc", "WriteFile"]).operations


def tensor(name: str, kind: int = 1, *sizes: int) -> dict[str, Any]:
    return {"name": f"{name}:0", "type": kind, "shape": {"dims": [{"size": size} for size in sizes]}}


def a_model(nodes: list[Any] = [], functions: list[Any] = [], **fields: Any) -> bytes:  # noqa: B006 - never changed
    graph = {
        "info": {"tags": ["serve"]},
        "graph": {"nodes": nodes, "library": {"functions": functions}},
        "signatures": {"serving_default": {"inputs": {"x": tensor("x", 1, -1, 784)}, "outputs": {"y": tensor("y")}, "method": "predict"}},
        **fields,
    }
    kind: Any = saved_model._pool()("SavedModel")
    content: bytes = kind(meta_graphs=[graph]).SerializeToString()
    return content


def node(name: str, op: str, *inputs: str, **functions: str) -> dict[str, Any]:
    return {"name": name, "op": op, "inputs": inputs, "attributes": {key: {"function": {"name": it}} for key, it in functions.items()}}


def test_signatures_are_read_with_names_types_and_shapes() -> None:
    signatures = {
        "b": {"inputs": {"s": tensor("s", 7), "r": {"name": "r:0", "type": 103, "shape": {"any_rank": True}}}, "outputs": {}},
        "a": {"inputs": {}, "outputs": {"odd": {"name": "odd:0", "type": 99}}},
        "__saved_model_init_op": {"outputs": {"init": tensor("init")}},
    }

    found = read(a_model(signatures=signatures), RISKY)

    assert [it.name for it in found.signatures] == ["a", "b"]
    (odd,) = found.signatures[0].outputs
    assert (odd.name, odd.type, list(odd.shape), odd.any_rank, odd.tensor) == ("odd", "dtype 99", [], True, "odd:0")
    ref, text = found.signatures[1].inputs
    assert (ref.type, ref.any_rank, text.type, text.any_rank) == ("int32", True, "string", False)
    assert found.tag_sets == ("serve",)
    assert list(read(a_model(), RISKY).signatures[0].inputs[0].shape) == [-1, 784]


@pytest.mark.parametrize(
    ("nodes", "functions"),
    [
        ([node("y", "Identity", "f"), node("f", "ReadFile", "x")], []),
        ([node("y", "Identity", "^f"), node("f", "ReadFile")], []),
        ([node("y", "PartitionedCall", f="body")], [{"declared": {"name": "body"}, "nodes": [node("r", "ReadFile")]}]),
        ([node("y", "body")], [{"declared": {"name": "body"}, "nodes": [node("r", "ReadFile")]}]),
        (
            [node("y", "If", then_branch="a")],
            [
                {"declared": {"name": "a"}, "nodes": [node("c", "StatefulPartitionedCall", f="b")]},
                {"declared": {"name": "b"}, "nodes": [node("c", "PartitionedCall", f="a"), node("r", "ReadFile")]},
            ],
        ),
        (
            [node("y", "PartitionedCall", f="a")],
            [
                {"declared": {"name": "a"}, "attributes": {"api_implements": {"text": b"it"}}},
                {"declared": {"name": "b"}, "attributes": {"api_implements": {"text": b"it"}}, "nodes": [node("r", "ReadFile")]},
            ],
        ),
    ],
)
def test_an_operation_that_a_caller_reaches_is_told(nodes: list[Any], functions: list[Any]) -> None:
    found = read(a_model(nodes, functions), RISKY)

    assert found.operations == ("ReadFile",)
    assert "Its graph has ReadFile" in found.warnings[0]


def test_what_is_run_when_the_model_is_loaded_counts_too() -> None:
    nodes = [node("w", "WriteFile"), node("p", "EagerPyFunc"), node("restore_all", "NoOp", "^p")]

    found = read(a_model(nodes, collections={"legacy_init_op": {"nodes": {"names": ["w"]}}}, saver={"restores": "restore_all"}), RISKY)

    assert found.operations == ("EagerPyFunc", "WriteFile")


def test_an_operation_that_nobody_reaches_is_no_reason() -> None:
    functions = [{"declared": {"name": "training_only"}, "nodes": [node("p", "EagerPyFunc")]}]

    assert read(a_model([node("y", "Identity", "x"), node("lonely", "ReadFile")], functions), RISKY).operations == ()


def test_no_signature_no_graph_and_no_protobuf_are_told() -> None:
    assert "has no signature" in read(a_model(signatures={}), RISKY).warnings[0]
    assert "holds no graph" in read(b"", RISKY).warnings[0]
    assert "no SavedModel that can be read" in read(b"\xff" * 100, RISKY).warnings[0]
    assert "neither signatures nor operations" in saved_model.too_large(1 << 40).warnings[0]


def test_more_than_an_event_has_room_for_is_left_out_and_said() -> None:
    many = {f"s{number:04}": {"inputs": {f"i{place}" * 80: tensor("i" * 300) for place in range(20)}} for number in range(300)}

    found = read(a_model(signatures=many), RISKY)

    assert sum(it.ByteSize() for it in found.signatures) <= 100_000
    assert f"{300 - len(found.signatures)} of its 300 signatures" in found.warnings[0]


def test_a_nest_deeper_than_protobuf_allows_is_no_model() -> None:
    inner = b""
    for _ in range(5000):
        size = len(inner)
        length = bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14]) if size > 127 else bytes([size])
        inner = b"\x12" + length + inner

    assert read(inner, RISKY).signatures == ()


@pytest.mark.security
@pytest.mark.parametrize(
    "part",
    [
        b"\x0a\x00",  # a node
        b"\x0a\x02\x1a\x00",  # a node with an input
        b"\x0a\x04\x2a\x02\x12\x00",  # a node with an attribute
        b"\x12\x04\x0a\x02\x1a\x00",  # a library with a function with a node
    ],
)
def test_a_graph_of_very_many_empty_parts_is_not_read(part: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved_model, "MOST_PARTS", 300_000)
    graph = part * (1_200_000 // len(part))
    content = field(2, field(2, graph))

    assert "has more than 300000 parts" in read(content, RISKY).warnings[0]


@pytest.mark.security
@given(st.binary(max_size=200))
def test_counting_ends_whatever_it_is_given(content: bytes) -> None:
    assert not has_more_than(1000, content, saved_model._parts(), "SavedModel")
    assert not has_more_than(1000, field(2, field(2, content)), saved_model._parts(), "SavedModel")


def field(number: int, content: bytes) -> bytes:
    size, length = len(content), b""
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content
