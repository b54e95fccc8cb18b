"""From the SignatureDefs of a SavedModel to the signatures that are served, and why the others are not.

A ragged tensor is several dense ones: its values, and for each ragged dimension where its rows begin and end. For the inputs TensorFlow itself
takes it apart when the model is saved, as `x`, `x_1` and so on; the outputs are taken apart here, under the same names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from services.serving.model_server.signatures import Signature, Tensor
from services.serving.model_server.tensors import TYPES

_INIT_SIGNATURE = "__saved_model_init_op"
_RAGGED = "RaggedTensorSpec"


class _NotServed(Exception):
    """Says which tensor and why."""


def read(meta_graph: Any) -> tuple[dict[str, Signature], dict[str, str]]:
    """(signatures, reasons against others), both by name."""
    found: dict[str, Signature] = {}
    reasons: dict[str, str] = {}
    for name, definition in meta_graph.signature_def.items():
        if name == _INIT_SIGNATURE or not definition.outputs:
            continue
        try:
            inputs, outputs = _tensors("input", definition.inputs), _tensors("output", definition.outputs)
        except _NotServed as error:
            reasons[name] = str(error)
            continue
        found[name] = Signature(name, definition.method_name, inputs, outputs)
    return found, reasons


def _tensors(side: str, infos: Any) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for alias, info in infos.items():
        for place, part in enumerate(_parts(side, alias, info)):
            name = f"{alias}_{place}" if place else alias
            if name in found or (place and name in infos):
                raise _NotServed(f"its {side} {alias} is ragged, and {name}, where its rows end, is the name of another; rename that one")
            if part.dtype not in TYPES:
                raise _NotServed(f"its {side} {name} is a resource, a variant or of another type that has no place in a request")
            shape = None if part.tensor_shape.unknown_rank else tuple(dim.size for dim in part.tensor_shape.dim)
            found[name] = Tensor(part.name, part.dtype, shape)
    return found


def _parts(side: str, alias: str, info: Any) -> Iterator[Any]:
    kind = info.WhichOneof("encoding")
    if kind == "name":
        yield info
        return
    composite = info.composite_tensor
    flat = all(part.WhichOneof("encoding") == "name" for part in composite.components)
    if kind == "composite_tensor" and composite.type_spec.type_spec_class_name == _RAGGED and composite.components and flat:
        yield from composite.components
        return
    what = "sparse" if kind == "coo_sparse" else composite.type_spec.type_spec_class_name or "composite"
    raise _NotServed(
        f"its {side} {alias} is not dense ({what}); save it with dense ones, of a SparseTensor its indices, values and dense_shape, "
        f"of a RaggedTensor its flat_values and row_splits"
    )
