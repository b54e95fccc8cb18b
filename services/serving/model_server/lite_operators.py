"""Which operators a TFLite file may have: those that TFLite itself is made of. Flex operators are TensorFlow's own, files and all, and what a
custom operator does nobody can say. They are looked for before an interpreter sees the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from services.serving.model_server.errors import FAILED_PRECONDITION, ServeError
from services.serving.model_server.operations import refusal

# Called custom, and a part of TFLite all the same.
_TFLITES_OWN = frozenset({"AudioSpectrogram", "Mfcc", "NumericVerify", "TFLite_Detection_PostProcess"})


def check(content: bytes, allowed: Iterable[str] = ()) -> None:
    """Raises FAILED_PRECONDITION for a file with an operator that is not allowed, or with parts in other files."""
    extra = _TFLITES_OWN.union(allowed)
    try:
        model = _model(content)
        custom = list(_custom(model))
        elsewhere = hasattr(model, "ExternalBufferGroupsLength") and model.ExternalBufferGroupsLength() > 0
    except Exception as error:  # offsets that lead out of the file, in whatever way
        raise ServeError(FAILED_PRECONDITION, f"the model may not be served: it is no TFLite file that can be read: {error}") from error
    for name in custom:
        if name not in extra:
            raise refusal(f"it has the {'flex' if name.startswith('Flex') else 'custom'} operator {name}", name)
    if elsewhere:
        raise ServeError(FAILED_PRECONDITION, "the model may not be served: its TFLite file keeps buffers in other files")


def _model(content: bytes) -> Any:
    from tensorflow.lite.python import schema_py_generated as schema

    if not schema.Model.ModelBufferHasIdentifier(content, 0):
        raise ValueError("its first bytes do not say TFL3")
    return schema.Model.GetRootAsModel(content, 0)


def _custom(model: Any) -> Iterator[str]:
    """An operator's code has two fields, of which the larger one counts; see TFLite's own GetBuiltinCode."""
    from tensorflow.lite.python import schema_py_generated as schema

    for place in range(model.OperatorCodesLength()):
        code = model.OperatorCodes(place)
        if max(code.BuiltinCode(), code.DeprecatedBuiltinCode()) == schema.BuiltinOperator.CUSTOM:
            yield (code.CustomCode() or b"").decode(errors="replace")
