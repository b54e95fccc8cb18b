"""Run by a test in a TensorFlow environment: `python look_at_operations.py NAME...` puts each operation of that TensorFlow into a graph of its
own and prints which of them the model server lets pass, of those named and of those with a string that may say where something lies."""

import json
import re
import sys

from tensorflow.core.framework import op_def_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow.python.client import pywrap_tf_session

from services.serving.model_server import operations
from services.serving.model_server.errors import ServeError

_STRING = 7  # DataType
_PLACE = re.compile(r"file|path|dir($|_)|ur[il]|address|descriptor|protocol|source|memory_region|target|stream|driver|vocab|prefix|suffix")


def told_of() -> list[op_def_pb2.OpDef]:
    return list(op_def_pb2.OpList.FromString(pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList())).op)


def strings(operation: op_def_pb2.OpDef) -> list[str]:
    inputs = [it.name for it in operation.input_arg if it.type == _STRING]
    return [*inputs, *(it.name for it in operation.attr if it.type in ("string", "list(string)"))]


def passes(name: str, stateful: dict[str, bool]) -> bool:
    graph = meta_graph_pb2.MetaGraphDef()
    graph.graph_def.node.add(name="it", op=name)
    graph.signature_def["serving_default"].outputs["y"].name = "it:0"
    try:
        operations.check(graph, stateful.get)
    except ServeError as error:
        assert f"the operation {name} (it)" in error.message
        return False
    return True


def main() -> None:
    known = told_of()
    stateful = {it.name: it.is_stateful for it in known}
    named = [name for name in sys.argv[1:] if name in stateful]
    placed = [it.name for it in known if any(_PLACE.search(name) for name in strings(it))]
    print(
        json.dumps(
            {
                "named": named,
                "named and passed": [name for name in named if passes(name, stateful)],
                "placed": placed,
                "placed and passed": [name for name in placed if passes(name, stateful)],
            }
        )
    )


if __name__ == "__main__":
    main()
