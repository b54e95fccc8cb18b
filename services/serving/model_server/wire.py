"""The messages that the server speaks, in a private descriptor pool: packages that carry the same names do no harm in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

DESCRIPTORS = Path(__file__).parent / "inference.binpb"
_OFTEN_USED = {
    "tensorflow.": ("SignatureDef", "Example"),
    "tensorflow.serving.": (
        "PredictRequest", "PredictResponse", "ClassificationRequest", "ClassificationResponse", "RegressionRequest", "RegressionResponse",
        "MultiInferenceRequest", "MultiInferenceResponse", "GetModelMetadataRequest", "GetModelMetadataResponse", "SignatureDefMap",
        "GetModelStatusRequest", "GetModelStatusResponse", "ReloadConfigRequest", "ReloadConfigResponse", "ModelServerConfig",
        "BatchingParameters", "MonitoringConfig", "SSLConfig", "PredictionLog",
    ),
    "grpc.health.v1.": ("HealthCheckRequest", "HealthCheckResponse"),
}  # fmt: skip


class Wire:
    """Message classes: those of TensorFlow Serving and of gRPC health by their short names as attributes, all by `message`."""

    def __init__(self, descriptors: Path = DESCRIPTORS) -> None:
        if not descriptors.exists():
            raise FileNotFoundError(f"{descriptors} is missing: run `make setup`, which generates it from protos/")
        files = descriptor_pb2.FileDescriptorSet.FromString(descriptors.read_bytes())
        self.pool = descriptor_pool.DescriptorPool()
        for file in files.file:
            self.pool.Add(file)
        for package, names in _OFTEN_USED.items():
            for name in names:
                setattr(self, name, self.message(package + name))

    def message(self, full_name: str) -> Any:
        """The class of a message by its full name."""
        return message_factory.GetMessageClass(self.pool.FindMessageTypeByName(full_name))

    def __getattr__(self, name: str) -> Any:
        """For the type checker: the short names are set at the start."""
        raise AttributeError(f"{name} is no message of {sorted(_OFTEN_USED)}; ask message() for it")
