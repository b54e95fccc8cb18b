"""Requests that came with a model, made once before anybody else's: assets.extra/tf_serving_warmup_requests, as TensorFlow Serving reads it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from services.serving.model_server import examples, tensors
from services.serving.model_server.servable import Servable
from services.serving.model_server.wire import Wire

FILE = Path("assets.extra") / "tf_serving_warmup_requests"
MOST = 1000
_MAX_RECORD = 256 << 20


def warm_up(model: Servable, path: Path, wire: Wire, iterations: int = 1) -> int:
    """How many requests there were. Raises ServeError where one of them fails, and ValueError for a file that makes no sense."""
    count = 0
    for record in records(path):
        count += 1
        if count > MOST:
            raise ValueError(f"{path} has more than {MOST} requests")
        try:
            log = wire.PredictionLog.FromString(record)
        except Exception as error:  # DecodeError; its place differs between versions of protobuf
            raise ValueError(f"record {count} of {path} is no tensorflow.serving.PredictionLog") from error
        for _ in range(max(iterations, 1)):
            _replay(model, log, wire)
    return count


def _replay(model: Servable, log: object, wire: Wire) -> None:
    kind = log.WhichOneof("log_type")  # type: ignore[attr-defined]
    if kind is None:
        raise ValueError("a request for warming up is of a kind that is not served")
    request = getattr(log, kind).request
    match kind:
        case "predict_log":
            signature = model.signature(request.model_spec.signature_name)
            inputs = {alias: tensors.to_array(request.inputs[alias], alias) for alias in request.inputs}
            model.predict(signature, inputs, request.output_filter)
        case "classify_log":
            examples.classify(model, request.model_spec.signature_name, request.input, wire)
        case "regress_log":
            examples.regress(model, request.model_spec.signature_name, request.input, wire)
        case _:
            examples.infer(model, request, wire)


def records(path: Path) -> Iterator[bytes]:
    """Of a TFRecord file: length, its checksum, the bytes, their checksum. TensorFlow's checksums guard against rotten disks, which the
    platform's own digests do already, so that they are not looked at."""
    with path.open("rb") as file:
        while head := file.read(12):
            if len(head) < 12:
                raise ValueError(f"{path} is cut short")
            (length,) = struct.unpack("<Q", head[:8])
            if length > _MAX_RECORD:
                raise ValueError(f"{path} has a record of {length} bytes")
            body = file.read(length + 4)
            if len(body) < length + 4:
                raise ValueError(f"{path} is cut short")
            yield body[:-4]
