"""The inference messages, in a private descriptor pool: PyPI packages with the same names in this process do no harm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

DESCRIPTORS = Path(__file__).parent / "inference.binpb"


class Wire:
    """Message classes by full name."""

    def __init__(self, descriptors: Path = DESCRIPTORS) -> None:
        if not descriptors.exists():
            raise FileNotFoundError(f"{descriptors.name} is missing beside {Path(__file__).name}: run `make protos`")
        files = descriptor_pb2.FileDescriptorSet.FromString(descriptors.read_bytes())
        self._pool = descriptor_pool.DescriptorPool()
        for file in files.file:
            self._pool.Add(file)
        self.TensorProto = self.message("tensorflow.TensorProto")
        self.PredictRequest = self.message("tensorflow.serving.PredictRequest")
        self.PredictResponse = self.message("tensorflow.serving.PredictResponse")
        self.HealthCheckRequest = self.message("grpc.health.v1.HealthCheckRequest")
        self.HealthCheckResponse = self.message("grpc.health.v1.HealthCheckResponse")

    def message(self, full_name: str) -> Any:
        return message_factory.GetMessageClass(self._pool.FindMessageTypeByName(full_name))
