"""Classify, Regress and MultiInference: examples in, classes and numbers out, with TensorFlow Serving's checks and words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from services.serving.model_server.errors import FAILED_PRECONDITION, UNIMPLEMENTED, ServeError, invalid
from services.serving.model_server.served import Served
from services.serving.model_server.signatures import DEFAULT_SIGNATURE, Signature
from services.serving.model_server.tensors import strings, type_name
from services.serving.model_server.wire import Wire

CLASSIFY, REGRESS, PREDICT = "tensorflow/serving/classify", "tensorflow/serving/regress", "tensorflow/serving/predict"
_INPUTS, _CLASSES, _SCORES, _OUTPUTS = "inputs", "classes", "scores", "outputs"


def classify(
    model: Served, signature_name: str, examples: Any, wire: Wire, deadline: float | None = None, *, check_method: bool = True
) -> Any:
    """The ClassificationResult of an Input."""
    signature = _signature(model, signature_name)
    wanted = _before_classify(signature, check_method)
    arrays = serialized(examples)
    return _classes(model.predict(signature, {_INPUTS: arrays}, wanted, deadline), len(arrays), wire)


def regress(
    model: Served, signature_name: str, examples: Any, wire: Wire, deadline: float | None = None, *, check_method: bool = True
) -> Any:
    """The RegressionResult of an Input."""
    signature = _signature(model, signature_name)
    wanted = _before_regress(signature, check_method)
    arrays = serialized(examples)
    return _values(model.predict(signature, {_INPUTS: arrays}, wanted, deadline), len(arrays), wire)


def infer(model: Served, request: Any, wire: Wire, deadline: float | None = None, *, check_method: bool = True) -> Any:
    """The MultiInferenceResponse: several signatures on one input."""
    tasks = _tasks(model, request, check_method)
    if len({signature.inputs[_INPUTS].name for signature, _, _ in tasks}) > 1:
        raise invalid("Input tensor must be the same for all Signatures.")
    arrays = serialized(request.input)
    response = wire.MultiInferenceResponse()
    for (signature, wanted, method), task in zip(tasks, request.tasks, strict=True):
        results = model.predict(signature, {_INPUTS: arrays}, wanted, deadline)
        made = response.results.add()
        if method == CLASSIFY:
            made.classification_result.CopyFrom(_classes(results, len(arrays), wire))
        else:
            made.regression_result.CopyFrom(_values(results, len(arrays), wire))
        answered_by(made.model_spec, model, task.model_spec.signature_name or DEFAULT_SIGNATURE)
    return response


def answered_by(model_spec: Any, model: Served, signature_name: str) -> None:
    """Which version and signature it was."""
    model_spec.name = model.name
    model_spec.version.value = model.version
    model_spec.signature_name = signature_name


def serialized(examples: Any) -> Any:
    """The examples of an Input as an array of strings; what they share stands before each."""
    kind = examples.WhichOneof("kind")
    found = getattr(examples, kind) if kind else None
    if found is None or not found.examples:
        raise invalid("Input is empty.")
    shared = found.context.SerializeToString() if kind == "example_list_with_context" else b""
    return strings([shared + example.SerializeToString() for example in found.examples], (len(found.examples),))


def _signature(model: Served, name: str) -> Signature:
    found = model.signatures.get(name or DEFAULT_SIGNATURE)
    if found is None:
        raise invalid(f"No signature was found with the name: {name or DEFAULT_SIGNATURE}")
    return found


def _tasks(model: Served, request: Any, check_method: bool) -> list[tuple[Signature, list[str], str]]:
    tasks, names = [], set[str]()
    for task in request.tasks:
        if not task.model_spec.name:
            raise invalid("Found ModelSpec with an empty model name.")
        if task.model_spec.name != request.tasks[0].model_spec.name:
            raise invalid("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
        name = task.model_spec.signature_name or DEFAULT_SIGNATURE
        if name in names:
            raise invalid(f"Duplicate evaluation of signature: {name}")
        names.add(name)
        signature = model.signatures.get(name)
        if signature is None:
            raise invalid(f"Requested signature not found in model graph: {name}")
        if task.method_name == CLASSIFY:
            tasks.append((signature, _before_classify(signature, check_method), CLASSIFY))
        elif task.method_name == REGRESS:
            tasks.append((signature, _before_regress(signature, check_method), REGRESS))
        else:
            raise ServeError(UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}")
    return tasks


def _before_classify(signature: Signature, check_method: bool) -> list[str]:
    """The outputs to ask for."""
    if check_method and signature.method != CLASSIFY:
        raise invalid(f"Expected classification signature method_name to be {CLASSIFY}. Was: {signature.method}")
    if len(signature.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if len(signature.outputs) not in (1, 2):
        raise invalid(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    if _INPUTS not in signature.inputs:
        raise ServeError(FAILED_PRECONDITION, f"No classification inputs found in SignatureDef: {_shown(signature)}")
    wanted = [alias for alias in (_CLASSES, _SCORES) if alias in signature.outputs]
    if not wanted:
        raise ServeError(
            FAILED_PRECONDITION,
            f'Expected classification signature outputs to contain at least one of "{_CLASSES}" or "{_SCORES}". '
            f"Signature was: {_shown(signature)}",
        )
    return wanted


def _before_regress(signature: Signature, check_method: bool) -> list[str]:
    if check_method and signature.method != REGRESS:
        raise invalid(f"Expected regression signature method_name to be {REGRESS}. Was: {signature.method}")
    if len(signature.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if len(signature.outputs) != 1:
        raise invalid("Expected one output Tensor.")
    if _INPUTS not in signature.inputs:
        raise ServeError(FAILED_PRECONDITION, f"No regression inputs found in SignatureDef: {_shown(signature)}")
    if _OUTPUTS not in signature.outputs:
        raise ServeError(FAILED_PRECONDITION, f"No regression outputs found in SignatureDef: {_shown(signature)}")
    return [_OUTPUTS]


def _shown(signature: Signature) -> str:
    return f"inputs {', '.join(sorted(signature.inputs))}, outputs {', '.join(sorted(signature.outputs))}"


def _classes(results: Mapping[str, Any], count: int, wire: Wire) -> Any:
    for alias, array in results.items():
        if array.ndim != 2:
            raise invalid(f"Expected Tensor shape: [batch_size num_classes] but got {_shape(array)}")
        if alias == _CLASSES and array.dtype != object:
            raise invalid(f"Expected classes Tensor of DT_STRING. Got: DT_{type_name(array).upper()}")
        if alias == _SCORES and array.dtype != np.float32:
            raise invalid(f"Expected scores Tensor of DT_FLOAT. Got: DT_{type_name(array).upper()}")
        if len(array) != count:
            raise invalid(f"Expected {alias} output batch size of {count}. Got: {len(array)}")
    widths = {array.shape[1] for array in results.values()}
    if len(widths) > 1:
        raise invalid(
            f"Tensors class and score should match in dim_size(1). Got {results[_CLASSES].shape[1]} vs. {results[_SCORES].shape[1]}"
        )
    made = wire.ClassificationResponse().result
    labels = results[_CLASSES].tolist() if _CLASSES in results else None
    scores = results[_SCORES].tolist() if _SCORES in results else None
    for row in range(count):
        classes = made.classifications.add().classes
        for place in range(next(iter(widths))):
            one = classes.add()
            if labels is not None:
                one.label = labels[row][place].decode(errors="replace")
            if scores is not None:
                one.score = scores[row][place]
    return made


def _values(results: Mapping[str, Any], count: int, wire: Wire) -> Any:
    array = results[_OUTPUTS]
    if array.ndim != 1 and not (array.ndim == 2 and array.shape[1] == 1):
        raise invalid(f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {_shape(array)}")
    if len(array) != count:
        raise invalid(f"Input batch size did not match output batch size: {count} vs. {len(array)}")
    if array.dtype != np.float32:
        raise invalid(f"Expected output Tensor of DT_FLOAT.  Got: DT_{type_name(array).upper()}")
    made = wire.RegressionResponse().result
    for value in array.reshape(-1).tolist():
        made.regressions.add().value = value
    return made


def _shape(array: Any) -> str:
    sizes: Sequence[int] = array.shape
    return f"[{','.join(map(str, sizes))}]"
