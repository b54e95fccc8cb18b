"""Which operations of a SavedModel's graph are run: by whoever calls it, and once when it is loaded. Others are there and do nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

# Collections that name what is run at the start, in models of TensorFlow 1.
_AT_START = ("saved_model_main_op", "legacy_init_op")
# Of functions: whose place one takes, and whether it is the forward or the backward half of another.
_INTERFACE, _HALVES = "api_implements", ("backward_function_name", "forward_function_name")


def operations(meta_graph: Any) -> Iterator[str]:
    """Some more than once. Of a function that is called, all that it does counts."""
    nodes = {node.name: node for node in meta_graph.graph.nodes}
    library = meta_graph.graph.library
    functions, stand_ins = {function.declared.name: function for function in library.functions}, _stand_ins(library)
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
        yield from _inside(node, functions, stand_ins, called)


def _inside(node: Any, functions: dict[str, Any], stand_ins: dict[str, list[str]], called: set[str]) -> Iterator[str]:
    """What is done by the functions that a node calls, each told once."""
    waiting = [node]
    while waiting:
        names = list(_called_by(waiting.pop()))
        for name in (*names, *(other for it in names for other in stand_ins.get(it, ()))):
            if name in functions and name not in called:
                called.add(name)
                waiting.extend(functions[name].nodes)
                yield from (inner.op for inner in functions[name].nodes)


def _called_by(node: Any) -> Iterator[str]:
    yield node.op
    for attribute in node.attributes.values():
        yield attribute.function.name
        yield from (it.name for it in attribute.list.functions)


def _stand_ins(library: Any) -> dict[str, list[str]]:
    """By function, what TensorFlow may run in its place: functions of the same mark, chosen by device, and the gradient that is declared."""
    alike: dict[tuple[bytes, tuple[bool, ...]], list[str]] = defaultdict(list)
    for function in library.functions:
        marks = function.attributes
        if _INTERFACE in marks and marks[_INTERFACE].text:
            alike[marks[_INTERFACE].text, tuple(it in marks for it in _HALVES)].append(function.declared.name)
    found = {name: list(names) for names in alike.values() for name in names}
    for gradient in library.gradients:
        found.setdefault(gradient.function, []).append(gradient.gradient)
    return found


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
