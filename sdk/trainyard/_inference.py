"""TensorFlow Serving's Predict, from a private descriptor pool: it never collides with TensorFlow's own protos."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from math import prod
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from trainyard._endpoint_tls import channel_to
from trainyard._errors import WebserviceException

_F = descriptor_pb2.FieldDescriptorProto
_TYPES = {"enum": _F.TYPE_INT32, "i32": _F.TYPE_INT32, "i64": _F.TYPE_INT64, "f32": _F.TYPE_FLOAT, "f64": _F.TYPE_DOUBLE,
          "u32": _F.TYPE_UINT32, "u64": _F.TYPE_UINT64, "bool": _F.TYPE_BOOL, "str": _F.TYPE_STRING, "bytes": _F.TYPE_BYTES}  # fmt: skip
# Wire-compatible with tensorflow_serving/apis: message -> (field, number, type; "*" = repeated). Only what Predict needs.
_MESSAGES: dict[str, list[tuple[str, int, str]]] = {
    "Dim": [("size", 1, "i64")],
    "Shape": [("dim", 2, "*Dim")],
    "Tensor": [("dtype", 1, "enum"), ("tensor_shape", 2, "Shape"), ("tensor_content", 4, "bytes"), ("float_val", 5, "*f32"),
               ("double_val", 6, "*f64"), ("int_val", 7, "*i32"), ("string_val", 8, "*bytes"),
               ("int64_val", 10, "*i64"), ("bool_val", 11, "*bool")],
    "ModelSpec": [("name", 1, "str"), ("signature_name", 3, "str")],
    "Named": [("key", 1, "str"), ("value", 2, "Tensor")],
    "PredictRequest": [("model_spec", 1, "ModelSpec"), ("inputs", 2, "*Named")],
    "PredictResponse": [("outputs", 1, "*Named"), ("model_spec", 2, "ModelSpec")],
}  # fmt: skip
# numpy's name -> (DataType, field that carries the values)
_DTYPES = {"float32": (1, "float_val"), "float64": (2, "double_val"), "int32": (3, "int_val"), "uint8": (4, "int_val"),
           "int16": (5, "int_val"), "int8": (6, "int_val"), "str": (7, "string_val"),
           "int64": (9, "int64_val"), "bool": (10, "bool_val")}  # fmt: skip
# A successor listens before its predecessor closes, so whoever is not there by then has gone for good.
_SUCCESSOR_SECONDS = 5.0
MOVED = "call update_deployment_state(), which finds the endpoint's address anew: with another model it is another one"
_BY_NUMBER = {number: (name, field) for name, (number, field) in _DTYPES.items()}


@cache
def _classes() -> dict[str, Any]:
    return built("trainyard_inference", _MESSAGES)


def built(name: str, messages: Mapping[str, list[tuple[str, int, str]]]) -> dict[str, Any]:
    """Message classes by name, in a pool of their own; what a message has beyond its fields here stays in it."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package="wire", syntax="proto3")
    for message, fields in messages.items():
        described = file.message_type.add(name=message)
        for field_name, number, kind in fields:
            many, base = kind.startswith("*"), kind.lstrip("*")
            field = described.field.add(name=field_name, number=number, label=_F.LABEL_REPEATED if many else _F.LABEL_OPTIONAL)
            field.type = _TYPES.get(base, _F.TYPE_MESSAGE)
            if base in messages:
                field.type_name = f".wire.{base}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {message: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"wire.{message}")) for message in messages}


def _flatten(value: Any) -> tuple[list[int], list[Any]]:
    """Shape and values of nested lists."""
    if not isinstance(value, list | tuple):
        return [], [value]
    parts = [_flatten(item) for item in value]
    if any(shape != parts[0][0] for shape, _ in parts):
        raise WebserviceException("The lists of an input must all be of one length.", code="UserError")
    return [len(parts), *(parts[0][0] if parts else [])], [item for _, items in parts for item in items]


def encode(value: Any) -> Any:
    """A TensorProto. An array keeps its dtype; of plain lists floats become float32, whole numbers int64, texts strings."""
    dtype = str(value.dtype) if hasattr(value, "dtype") else ""
    shape, items = _flatten(value.tolist() if hasattr(value, "tolist") else value)
    if hasattr(value, "shape"):
        shape = list(value.shape)
    if dtype not in _DTYPES:
        kinds = {type(item) for item in items}
        dtype = "bool" if kinds == {bool} else "int64" if kinds == {int} else "str" if kinds and kinds <= {str, bytes} else "float32"
    number, field = _DTYPES[dtype]
    tensor = _classes()["Tensor"](dtype=number)
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    try:
        getattr(tensor, field).extend([item.encode() if isinstance(item, str) else item for item in items])
    except (TypeError, ValueError) as error:
        raise WebserviceException(f"An input has a value that no {dtype} can be: {error}", code="UserError") from error
    return tensor


def decode(tensor: Any) -> Any:
    """A TensorProto as an array of its dtype and shape, strings as objects; nested lists where numpy is missing.

    Raises WebserviceException for a type that has no place here, e.g. bfloat16.
    """
    name, field = _BY_NUMBER.get(tensor.dtype, ("", ""))
    if not field:
        raise WebserviceException(f"The answer has a tensor of type {tensor.dtype}, which this client cannot read.", code="UserError")
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    values = list(getattr(tensor, field))
    try:
        import numpy
    except ImportError:
        return _nested(values, shape)
    dtype = object if name == "str" else numpy.dtype(name)
    if tensor.tensor_content:
        return numpy.frombuffer(tensor.tensor_content, dtype=dtype).reshape(shape)
    if len(values) == 1 and prod(shape) > 1:  # a tensor of one repeated value is sent as that one
        values *= prod(shape)
    return numpy.array(values, dtype=dtype).reshape(shape)


def _nested(values: list[Any], shape: list[int]) -> Any:
    if not shape:
        return values[0]
    step = prod(shape[1:])
    return [_nested(values[start : start + step], shape[1:]) for start in range(0, shape[0] * step, step or 1)]


def predict(
    address: str,
    model: str,
    inputs: Mapping[str, Any],
    signature_name: str,
    timeout: float,
    headers: Mapping[str, str] | None = None,
    certificate: str = "",
) -> dict[str, Any]:
    """One Predict call: input name -> array or nested lists, output name -> array. address: host:port; timeout: seconds; headers go along.
    certificate: the server's (PEM), where it speaks TLS.

    Raises WebserviceException, code "ScoringFailed", with the server's status and words.
    """
    classes = _classes()
    request = classes["PredictRequest"]()
    request.model_spec.name, request.model_spec.signature_name = model, signature_name
    for name, value in inputs.items():
        request.inputs.add(key=name, value=encode(value))
    with channel_to(address, certificate) as channel:
        call = channel.unary_unary(
            "/tensorflow.serving.PredictionService/Predict",
            request_serializer=classes["PredictRequest"].SerializeToString,
            response_deserializer=classes["PredictResponse"].FromString,
        )
        try:
            answer = _at_most_twice(channel, call, request, timeout, tuple((headers or {}).items()))
        except grpc.FutureTimeoutError as error:
            raise WebserviceException(f"Nothing listens at {address}.", code="Unavailable", target=address, hint=MOVED) from error
        except grpc.RpcError as error:
            raise WebserviceException(
                f"Predict failed ({error.code().name}): {error.details()}", code="ScoringFailed", target=address
            ) from error
    return {named.key: decode(named.value) for named in answer.outputs}


def _at_most_twice(channel: grpc.Channel, call: Any, request: Any, timeout: float, metadata: tuple[tuple[str, str], ...]) -> Any:
    """gRPC cancels what arrives at the moment in which an old version's server closes; its successor listens already."""
    try:
        return call(request, timeout=timeout, metadata=metadata)
    except grpc.RpcError as error:
        if error.code() not in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE):
            raise
    grpc.channel_ready_future(channel).result(timeout=min(timeout, _SUCCESSOR_SECONDS))
    return call(request, timeout=timeout, metadata=metadata)
