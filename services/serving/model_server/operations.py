"""Which operations the graph of a model may have: a SavedModel is a program, and this is the list of what it may do.

Allowed is whatever has no state, and what keeps its state to itself: variables, tables, random numbers, control flow, and tables that are
filled from a file that comes with the model. Reading and writing
files, Python, datasets, queues, messages to other machines and the rest are refused, with the operation named. Looked at is what is run:
by callers, and once at the start; variables may be restored there. What would save them is never run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from services.graph_operations import REACHING_OUT
from services.serving.model_server.errors import FAILED_PRECONDITION, ServeError
from services.serving.model_server.vocabulary import FILLING, Assets

# What does have state, and keeps it to itself.
STATEFUL = frozenset(
    {
        "Assert", "AssignAddVariableOp", "AssignSubVariableOp", "AssignVariableOp", "AnonymousHashTable",
        "AnonymousMutableDenseHashTable", "AnonymousMutableHashTable", "AnonymousMutableHashTableOfTensors", "AnonymousSeedGenerator",
        "BoostedTreesEnsembleResourceHandleOp", "BoostedTreesPredict", "BoostedTreesDeserializeEnsemble", "BoostedTreesCreateEnsemble",
        "IsBoostedTreesEnsembleInitialized", "Case", "CheckNumerics", "CheckNumericsV2", "CudnnRNN", "CudnnRNNV2", "CudnnRNNV3",
        "DestroyResourceOp", "DisableCopyOnRead", "Empty", "GuaranteeConst", "HashTable", "HashTableV2", "If", "InitializeTableV2",
        "LookupTableExportV2", "LookupTableFindV2", "LookupTableImportV2", "LookupTableInsertV2", "LookupTableRemoveV2",
        "LookupTableSizeV2", "Multinomial", "MutableDenseHashTable", "MutableDenseHashTableV2", "MutableHashTable",
        "MutableHashTableOfTensors", "MutableHashTableOfTensorsV2", "MutableHashTableV2", "MutexLock", "MutexV2", "ConsumeMutexLock",
        "NonDeterministicInts", "ParameterizedTruncatedNormal", "RandomCrop", "RandomGamma", "RandomPoisson", "RandomPoissonV2",
        "RandomShuffle", "RandomStandardNormal", "RandomUniform", "RandomUniformInt", "ReadVariableOp", "ResourceGather",
        "ResourceGatherNd", "ResourceScatterAdd", "ResourceScatterDiv", "ResourceScatterMax", "ResourceScatterMin", "ResourceScatterMul",
        "ResourceScatterNdAdd", "ResourceScatterNdMax", "ResourceScatterNdMin", "ResourceScatterNdSub", "ResourceScatterNdUpdate",
        "ResourceScatterSub", "ResourceScatterUpdate", "ResourceStridedSliceAssign", "RngReadAndSkip", "RngSkip", "Stack",
        "StackCloseV2", "StackPopV2", "StackPushV2", "StackV2", "StatefulPartitionedCall", "StatefulRandomBinomial",
        "StatefulStandardNormal", "StatefulStandardNormalV2", "StatefulTruncatedNormal", "StatefulUniform", "StatefulUniformFullInt",
        "StatefulUniformInt", "StatelessRandomGetAlg", "TemporaryVariable", "TensorArray", "TensorArrayCloseV3", "TensorArrayConcatV3",
        "TensorArrayGatherV3", "TensorArrayReadV3", "TensorArrayScatterV3", "TensorArraySizeV3", "TensorArraySplitV3", "TensorArrayV2",
        "TensorArrayV3", "TensorArrayWriteV3", "Timestamp", "TruncatedNormal", "VarHandleOp", "VarIsInitializedOp", "Variable",
        "VariableShape", "VariableV2", "While", "XlaLaunch",
    }
)  # fmt: skip
_RESTORING = frozenset({"Restore", "RestoreSlice", "RestoreV2"})
_DATA = ("Dataset", "Iterator")
# Attributes of functions: whose place one takes, and whether it is the forward or the backward half of another; halves are not exchanged for wholes.
_INTERFACE, _HALVES = "api_implements", ("backward_function_name", "forward_function_name")


def check(meta_graph: Any, is_stateful: Callable[[str], bool | None], allowed: Iterable[str] = ()) -> None:
    """Raises FAILED_PRECONDITION where what a call or the loading can reach has an operation that is not allowed.

    `is_stateful`: what TensorFlow says of an operation; None: it does not know it. `allowed`: operations beyond the list.
    """
    extra = frozenset(allowed)
    called = _reachable(meta_graph, _roots(meta_graph))
    restored = _reachable(meta_graph, [meta_graph.saver_def.restore_op_name] if meta_graph.HasField("saver_def") else [])
    assets = Assets(meta_graph)
    for node, scope in [*called, *((node, scope) for node, scope in restored if node.op not in _RESTORING)]:
        operation = node.op
        if operation in extra or (operation in FILLING and assets.fill(node, scope)):
            continue
        stateful = is_stateful(operation)
        reaches_out = operation in REACHING_OUT or operation in FILLING or any(word in operation for word in _DATA)
        if reaches_out or not (stateful is False or operation in STATEFUL):
            raise refusal(f"its graph has the operation {operation} ({node.name}{f' in function {scope}' if scope else ''})", operation)


def refusal(why: str, operation: str) -> ServeError:
    return ServeError(
        FAILED_PRECONDITION,
        f"the model may not be served: {why}, which is not on the list of those allowed; "
        f"whoever trusts the model starts the server with --allowed_operations={operation}",
    )


def _reachable(meta_graph: Any, roots: Iterable[str]) -> Iterator[tuple[Any, str]]:
    """Nodes, each with the name of the function that has it, or "" for the graph itself."""
    nodes = {node.name: node for node in meta_graph.graph_def.node}
    library = meta_graph.graph_def.library
    functions, stand_ins = {function.signature.name: function for function in library.function}, _stand_ins(library)
    waiting = [_node_name(name) for name in roots]
    seen, called = set(waiting), set[str]()
    while waiting:
        node = nodes.get(waiting.pop())
        if node is None:
            continue
        if node.op not in functions:
            yield node, ""
        yield from _called(node, functions, stand_ins, called)
        for name in map(_node_name, node.input):
            if name not in seen:
                seen.add(name)
                waiting.append(name)


def _called(node: Any, functions: Mapping[str, Any], stand_ins: Mapping[str, Sequence[str]], called: set[str]) -> Iterator[tuple[Any, str]]:
    """Whole bodies: what a function does besides its results counts too."""
    waiting = [node]
    while waiting:
        current = waiting.pop()
        names = [current.op, *(name for value in current.attr.values() for name in _function_names(value))]
        for name in (*names, *(other for it in names for other in stand_ins.get(it, ()))):
            if name in functions and name not in called:
                called.add(name)
                for inner in functions[name].node_def:
                    if inner.op not in functions:  # a function that is called as if it were an operation
                        yield inner, name
                    waiting.append(inner)


def _stand_ins(library: Any) -> dict[str, list[str]]:
    """By function, what TensorFlow may run in its place: functions of the same mark, chosen by device, and the gradient that is declared."""
    alike: dict[tuple[bytes, tuple[bool, ...]], list[str]] = defaultdict(list)
    for function in library.function:
        if mark := _INTERFACE in function.attr and function.attr[_INTERFACE].s:
            alike[mark, tuple(it in function.attr for it in _HALVES)].append(function.signature.name)
    found = {name: list(names) for names in alike.values() for name in names}
    for gradient in library.gradient:
        found.setdefault(gradient.function_name, []).append(gradient.gradient_func)
    return found


def _function_names(value: Any) -> list[str]:
    if value.HasField("func"):
        return [value.func.name]
    return [function.name for function in value.list.func] if value.HasField("list") else []


def _roots(meta_graph: Any) -> Iterator[str]:
    """Signatures, and what runs once at the start."""
    for signature in meta_graph.signature_def.values():
        for info in [*signature.inputs.values(), *signature.outputs.values()]:
            yield from _tensor_names(info)
    for key in ("saved_model_main_op", "legacy_init_op"):
        if key in meta_graph.collection_def:
            yield from meta_graph.collection_def[key].node_list.value


def _tensor_names(info: Any) -> Iterator[str]:
    kind = info.WhichOneof("encoding")
    if kind == "name":
        yield info.name
    elif kind == "coo_sparse":
        yield from (info.coo_sparse.values_tensor_name, info.coo_sparse.indices_tensor_name, info.coo_sparse.dense_shape_tensor_name)
    elif kind == "composite_tensor":
        for component in info.composite_tensor.components:
            yield from _tensor_names(component)


def _node_name(tensor: str) -> str:
    return tensor.removeprefix("^").partition(":")[0]
