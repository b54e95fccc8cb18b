"""Which operations of a SavedModel's graph are run: by whoever calls it, and once when it is loaded. Others are there and do nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

# Collections that name what is run at the start, in models of TensorFlow 1.
_AT_START = ("saved_model_main_op", "legacy_init_op")


def operations(meta_graph: Any) -> Iterator[str]:
    """Some more than once. Of a function that is called, all that it does counts."""
    nodes = {node.name: node for node in meta_graph.graph.nodes}
    functions = {function.declared.name: function for function in meta_graph.graph.library.functions}
    seen: set[str] = set()
    called: set[str] = set()
    waiting = list(_starts(meta_graph))
    while waiting:
        name = waiting.pop().removeprefix("^").partition(":")[0]
        if name in seen or name not in nodes:
            continue
        seen.add(name)
        node = nodes[name]
        waiting.extend(node.inputs)
        yield node.op
        yield from _inside(node, functions, called)


def _inside(node: Any, functions: dict[str, Any], called: set[str]) -> Iterator[str]:
    """What is done by the functions that a node calls, each told once."""
    waiting = [node]
    while waiting:
        for name in _called_by(waiting.pop()):
            if name in functions and name not in called:
                called.add(name)
                waiting.extend(functions[name].nodes)
                yield from (inner.op for inner in functions[name].nodes)


def _called_by(node: Any) -> Iterator[str]:
    yield node.op
    for attribute in node.attributes.values():
        yield attribute.function.name
        yield from (it.name for it in attribute.list.functions)


def _starts(meta_graph: Any) -> Iterator[str]:
    for signature in meta_graph.signatures.values():
        for tensor in (*signature.inputs.values(), *signature.outputs.values()):
            yield from _tensors(tensor)
    for name in _AT_START:
        if name in meta_graph.collections:
            yield from meta_graph.collections[name].nodes.names
    yield meta_graph.saver.restores


def _tensors(tensor: Any) -> Iterator[str]:
    yield tensor.name
    yield from (tensor.sparse.values, tensor.sparse.indices, tensor.sparse.shape)
    for component in tensor.composite.components:
        yield from _tensors(component)
