"""gRPC's requests and answers, as far as a replay looks into them. What it does not know of a request is sent as it came."""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf.message import DecodeError

from trainyard._inference import built

PREDICTION = "/tensorflow.serving.PredictionService/"
INFER = "/inference.GRPCInferenceService/ModelInfer"
_SPEC = [("model_spec", 1, "ModelSpec")]
_REQUESTS: dict[str, list[tuple[str, int, str]]] = {
    "Number": [("value", 1, "i64")],
    "ModelSpec": [("name", 1, "str"), ("version", 2, "Number"), ("signature_name", 3, "str"), ("version_label", 4, "str")],
    "Predict": _SPEC,
    "Classify": _SPEC,
    "Regress": _SPEC,
    "Task": _SPEC,
    "MultiInference": [("tasks", 1, "*Task")],
    "ModelInfer": [("model_name", 1, "str"), ("model_version", 2, "str")],
}
_ANSWERS: dict[str, list[tuple[str, int, str]]] = {
    "Dim": [("size", 1, "i64")],
    "Shape": [("dim", 2, "*Dim")],
    "Tensor": [
        ("dtype", 1, "enum"), ("tensor_shape", 2, "Shape"), ("tensor_content", 4, "bytes"), ("float_val", 5, "*f32"), ("double_val", 6, "*f64"),
        ("int_val", 7, "*i32"), ("string_val", 8, "*bytes"), ("scomplex_val", 9, "*f32"), ("int64_val", 10, "*i64"), ("bool_val", 11, "*bool"),
        ("dcomplex_val", 12, "*f64"), ("half_val", 13, "*i32"), ("uint32_val", 16, "*u32"), ("uint64_val", 17, "*u64"),
    ],
    "Named": [("key", 1, "str"), ("value", 2, "Tensor")],
    "Predict": [("outputs", 1, "*Named")],
    "Class": [("label", 1, "str"), ("score", 2, "f32")],
    "Classes": [("classes", 1, "*Class")],
    "Classification": [("classifications", 1, "*Classes")],
    "Classify": [("result", 1, "Classification")],
    "Value": [("value", 1, "f32")],
    "Regression": [("regressions", 1, "*Value")],
    "Regress": [("result", 1, "Regression")],
    "Result": [("classification_result", 2, "Classification"), ("regression_result", 3, "Regression")],
    "MultiInference": [("results", 1, "*Result")],
    "Contents": [
        ("bool_contents", 1, "*bool"), ("int_contents", 2, "*i32"), ("int64_contents", 3, "*i64"), ("uint_contents", 4, "*u32"),
        ("uint64_contents", 5, "*u64"), ("fp32_contents", 6, "*f32"), ("fp64_contents", 7, "*f64"), ("bytes_contents", 8, "*bytes"),
    ],
    "Output": [("name", 1, "str"), ("datatype", 2, "str"), ("shape", 3, "*i64"), ("contents", 5, "Contents")],
    "ModelInfer": [("outputs", 5, "*Output"), ("raw_output_contents", 6, "*bytes")],
}  # fmt: skip
_CALLS = {f"{PREDICTION}{name}": name for name in ("Predict", "Classify", "Regress", "MultiInference")} | {INFER: "ModelInfer"}


def is_known(method: str) -> bool:
    """Whether it is one of those that ask a model: anybody may write to the log, and no other is called."""
    return method in _CALLS


def addressed(method: str, request: bytes, model: str) -> bytes:
    """The same request, to the version of that model which its server takes for the newest. Raises ValueError where it is none."""
    message = _parsed("trainyard_replay_requests", method, request)
    if method == INFER:
        message.model_name, message.model_version = model, ""
        return bytes(message.SerializeToString())
    for named in message.tasks if method.endswith("/MultiInference") else [message]:
        named.model_spec.name = model
        named.model_spec.ClearField("version")
        named.model_spec.ClearField("version_label")
    return bytes(message.SerializeToString())


def answer(method: str, content: bytes) -> Any:
    """An answer's message. Raises ValueError where it is none."""
    return _parsed("trainyard_replay_answers", method, content)


@cache
def _classes(name: str) -> dict[str, Any]:
    return built(name, _REQUESTS if name == "trainyard_replay_requests" else _ANSWERS)


def _parsed(name: str, method: str, content: bytes) -> Any:
    try:
        return _classes(name)[_CALLS[method]].FromString(content)
    except (DecodeError, KeyError) as error:
        raise ValueError(f"that is no message of {method[:200]}") from error
