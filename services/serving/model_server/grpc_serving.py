"""tensorflow.serving.PredictionService and ModelService."""

from __future__ import annotations

from typing import Any

from services.serving.model_server.grpc_calls import Observe, Service, Work, unary
from services.serving.model_server.serving_calls import Calls
from services.serving.model_server.wire import Wire

PREDICTION_SERVICE, MODEL_SERVICE = "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"


def services(calls: Calls, wire: Wire, observe: Observe) -> list[Service]:
    def method(name: str, work: Work, request: str) -> tuple[str, Any]:
        return name, unary(work, getattr(wire, request), name, observe, _model)

    predicting = dict(
        (
            method("Predict", calls.predict, "PredictRequest"),
            method("Classify", calls.classify, "ClassificationRequest"),
            method("Regress", calls.regress, "RegressionRequest"),
            method("MultiInference", calls.multi_inference, "MultiInferenceRequest"),
            method("GetModelMetadata", calls.metadata, "GetModelMetadataRequest"),
        )
    )
    managing = dict(
        (
            method("GetModelStatus", calls.status, "GetModelStatusRequest"),
            method("HandleReloadConfigRequest", calls.reload, "ReloadConfigRequest"),
        )
    )
    return [Service(PREDICTION_SERVICE, predicting), Service(MODEL_SERVICE, managing)]


def _model(request: Any) -> str:
    if hasattr(request, "model_spec"):
        return str(request.model_spec.name)
    return str(request.tasks[0].model_spec.name) if getattr(request, "tasks", None) else ""
