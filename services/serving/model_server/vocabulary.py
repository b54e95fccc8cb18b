"""Does the file that fills a table come with the model? A path is followed from the operation back to where it was written."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

FILLING = frozenset({"InitializeTableFromTextFile", "InitializeTableFromTextFileV2"})
_FILE_INPUT = 1
_DEEPEST = 64
_OF_VARIABLES = frozenset({"AssignVariableOp", "ReadVariableOp", "VarIsInitializedOp"})


class Assets:
    """The files of one meta graph. Whoever loads a SavedModel writes their true paths into the graph."""

    def __init__(self, meta_graph: Any) -> None:
        self._nodes = {node.name: node for node in meta_graph.graph_def.node}
        self._functions = {function.signature.name: function for function in meta_graph.graph_def.library.function}
        self._assets = {_node_name(asset.tensor_info.name) for asset in meta_graph.asset_file_def}
        self._calls: dict[str, list[tuple[Any, str]]] = defaultdict(list)  # by function: its calls, each with the function that has it
        self._handles: Counter[str] = Counter()  # of variables, by the name that they share
        scopes = [("", meta_graph.graph_def.node), *((name, function.node_def) for name, function in self._functions.items())]
        for scope, nodes in scopes:
            for node in nodes:
                if node.op == "VarHandleOp":
                    self._handles[_shared_name(node)] += 1
                for called in (node.op, node.attr["f"].func.name if "f" in node.attr else ""):
                    if called in self._functions:
                        self._calls[called].append((node, scope))

    def fill(self, node: Any, scope: str) -> bool:
        """Is it filled from one of them? `scope`: the function that has the node; "" = none."""
        return len(node.input) > _FILE_INPUT and self._is_asset(node.input[_FILE_INPUT], scope, 0)

    def _is_asset(self, tensor: str, scope: str, depth: int) -> bool:
        name = _node_name(tensor)
        if depth > _DEEPEST:
            return False
        if not scope and name in self._assets:
            return True
        if scope:
            function = self._functions[scope]
            arguments = [argument.name for argument in function.signature.input_arg]
            if name in arguments:
                place, calls = arguments.index(name), self._calls[scope]
                return bool(calls) and all(
                    place < len(call.input) and self._is_asset(call.input[place], outer, depth + 1) for call, outer in calls
                )
            node = next((it for it in function.node_def if it.name == name), None)
        else:
            node = self._nodes.get(name)
        if node is None or not node.input:
            return False
        if node.op == "ReadVariableOp":
            return not scope and self._holds_an_asset(_node_name(node.input[0]), depth + 1)
        return node.op == "Identity" and self._is_asset(node.input[0], scope, depth + 1)

    def _holds_an_asset(self, variable: str, depth: int) -> bool:
        """TensorFlow 2 keeps the path in a variable. Nobody else may write it: no function has it, and no other handle has its name."""
        handle = self._nodes.get(variable)
        if handle is None or handle.op != "VarHandleOp" or self._handles[_shared_name(handle)] != 1:
            return False
        users = [node for node in self._nodes.values() if variable in map(_node_name, node.input)]
        written = [node for node in users if node.op == "AssignVariableOp"]
        return (
            bool(written)
            and all(node.op in _OF_VARIABLES for node in users)
            and all(len(node.input) > 1 and self._is_asset(node.input[1], "", depth + 1) for node in written)
        )


def _shared_name(handle: Any) -> str:
    return handle.attr["shared_name"].s.decode(errors="replace") or str(handle.name)


def _node_name(tensor: str) -> str:
    return tensor.removeprefix("^").partition(":")[0]
