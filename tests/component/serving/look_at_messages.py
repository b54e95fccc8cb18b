"""Run by a test in an environment with PyPI's stubs: `python look_at_messages.py` has them and our own definitions in one process, sends messages
from each to the other, and prints in which fields the definitions differ."""

import importlib
import json
import pkgutil
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from tritonclient import grpc as triton
from tritonclient.grpc import service_pb2

from services.serving.model_server.wire import DESCRIPTORS, Wire

_NOT_THEIRS = ("google.", "grpc.")  # the first are the same files, the second are no part of these packages


def stubs() -> list[str]:
    """TensorFlow Serving's, which are there for the newest line."""
    found = []
    for part in ("apis", "config"):
        try:
            package = importlib.import_module(f"tensorflow_serving.{part}")
        except ModuleNotFoundError:
            continue
        names = [it.name for it in pkgutil.iter_modules(package.__path__, f"{package.__name__}.") if it.name.endswith("_pb2")]
        found += [importlib.import_module(name).__name__ for name in names]
    return found


def all_messages(file: Any) -> list[str]:
    waiting = [(f"{file.package}.", message) for message in file.message_type]
    found = []
    while waiting:
        prefix, message = waiting.pop()
        found.append(prefix + message.name)
        waiting += [(f"{prefix}{message.name}.", inner) for inner in message.nested_type]
    return found


def kind(field: FieldDescriptor) -> list[Any]:
    declared = descriptor_pb2.FieldDescriptorProto()
    field.containing_type.CopyToProto(owner := descriptor_pb2.DescriptorProto())
    declared.CopyFrom(next(it for it in owner.field if it.name == field.name))
    packed = declared.options.packed if declared.options.HasField("packed") else None
    oneof = owner.oneof_decl[declared.oneof_index].name if declared.HasField("oneof_index") else ""
    return [declared.number, declared.type, declared.label, declared.type_name, oneof, packed is False]


def fields(message: Descriptor) -> dict[str, Any]:
    """What there is to compare, by name: fields, and the values of the enumerations that they hold."""
    values = {f"{field.name}={it.name}": it.number for field in message.fields if field.enum_type for it in field.enum_type.values}
    return {field.name: kind(field) for field in message.fields} | values


def compared(wire: Wire) -> dict[str, Any]:
    found: dict[str, Any] = {"compared": 0, "not theirs": [], "missing": [], "different": []}
    for file in descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()).file:
        for name in () if f"{file.package}.".startswith(_NOT_THEIRS) else all_messages(file):
            try:
                theirs = fields(descriptor_pool.Default().FindMessageTypeByName(name))
            except KeyError:
                found["not theirs"].append(name)
                continue
            ours = fields(wire.pool.FindMessageTypeByName(name))
            found["compared"] += 1
            found["missing"] += [f"{name}.{field}" for field in theirs.keys() - ours.keys()]
            found["different"] += [f"{name}.{field}" for field in ours if ours[field] != theirs.get(field)]
    return found


def sent(wire: Wire) -> dict[str, Any]:
    """There and back: theirs, read and written by ours, is theirs again."""
    infer = triton.InferInput("x", [2], "FP32")
    infer.set_data_from_numpy(np.array([1.0, 4.0], np.float32))
    request = service_pb2.ModelInferRequest(model_name="half", id="42", inputs=[infer._get_tensor()], raw_input_contents=[b"12345678"])
    request.parameters["signature_name"].string_param = "tag"
    found = {"ModelInferRequest": there_and_back(wire, request)}
    tensor = tf.make_tensor_proto([[1.0, 4.0]], tf.float32)
    found["TensorProto"] = there_and_back(wire, tensor)
    try:
        from tensorflow_serving.apis import predict_pb2
    except ImportError:
        return found
    predict = predict_pb2.PredictRequest(output_filter=["y"])
    predict.model_spec.name, predict.model_spec.version.value = "half", 3
    predict.inputs["x"].CopyFrom(tensor)
    found["PredictRequest"] = there_and_back(wire, predict)
    return found


def there_and_back(wire: Wire, message: Any) -> bool:
    ours = wire.message(message.DESCRIPTOR.full_name).FromString(message.SerializeToString())
    return bool(type(message).FromString(ours.SerializeToString()) == message and type(ours) is not type(message))


def main() -> None:
    # Both orders: whoever comes second must not find the names taken.
    before = Wire()
    found = {"stubs": len(stubs())}
    wire = Wire()
    print(json.dumps({**found, **compared(wire), "sent": sent(wire), "sent by the first": sent(before)}))


if __name__ == "__main__":
    main()
