"""The inference messages, in a private descriptor pool: packages that carry the same names do no harm in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

DESCRIPTORS = Path(__file__).parent / "inference.binpb"


class Wire:
    """The message classes that the server speaks."""

    def __init__(self, descriptors: Path = DESCRIPTORS) -> None:
        if not descriptors.exists():
            raise FileNotFoundError(f"{descriptors} is missing: run `make setup`, which generates it from protos/")
        files = descriptor_pb2.FileDescriptorSet.FromString(descriptors.read_bytes())
        self._pool = descriptor_pool.DescriptorPool()
        for file in files.file:
            self._pool.Add(file)
        self.PredictRequest = self.message("tensorflow.serving.PredictRequest")
        self.PredictResponse = self.message("tensorflow.serving.PredictResponse")
        self.HealthCheckRequest = self.message("grpc.health.v1.HealthCheckRequest")
        self.HealthCheckResponse = self.message("grpc.health.v1.HealthCheckResponse")

    def message(self, full_name: str) -> Any:
        """Its class."""
        return message_factory.GetMessageClass(self._pool.FindMessageTypeByName(full_name))
