"""Run by a test in a TensorFlow environment: `python stub_client.py GRPC_ADDRESS FOLDER` talks to a model server by PyPI's own stubs of
TensorFlow Serving, as their users do, and prints what it heard as JSON. In FOLDER it leaves warm-up requests."""

import json
import sys
from pathlib import Path
from typing import Any

import grpc
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)


def predict_request(x: list[float], model: str = "half", **spec: str) -> Any:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = spec.get("signature", "serving_default")
    if "label" in spec:
        request.model_spec.version_label = spec["label"]
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(x, tf.float32))
    return request


def with_examples(request: Any, signature: str, *values: float) -> Any:
    request.model_spec.name, request.model_spec.signature_name = "examples", signature
    for value in values:
        request.input.example_list.examples.add().features.feature["x"].float_list.value.append(value)
    return request


def refusal(call: Any) -> list[str]:
    try:
        call()
    except grpc.RpcError as error:
        return [error.code().name, error.details()]  # type: ignore[attr-defined]
    return []


def main() -> None:
    channel = grpc.insecure_channel(sys.argv[1])
    predicting = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    managing = model_service_pb2_grpc.ModelServiceStub(channel)
    heard: dict[str, Any] = {}

    answer = predicting.Predict(predict_request([1.0, 4.0]), 30)
    heard["predict"] = [answer.model_spec.version.value, tf.make_ndarray(answer.outputs["y"]).tolist()]
    labelled = predicting.Predict(predict_request([1.0], label="stable"), 30)
    heard["label"] = [labelled.model_spec.version.value, tf.make_ndarray(labelled.outputs["y"]).tolist()]
    heard["signature"] = refusal(lambda: predicting.Predict(predict_request([1.0], signature="nope"), 30))
    heard["unknown"] = refusal(lambda: predicting.Predict(predict_request([1.0], model="nope"), 30))

    classified = predicting.Classify(with_examples(classification_pb2.ClassificationRequest(), "serving_default", 0.0), 30)
    heard["classify"] = [[it.label, it.score] for it in classified.result.classifications[0].classes]
    regressed = predicting.Regress(with_examples(regression_pb2.RegressionRequest(), "value", 0.0, 2.0), 30)
    heard["regress"] = [it.value for it in regressed.result.regressions]
    several = inference_pb2.MultiInferenceRequest(input=regression_pb2.RegressionRequest().input)
    several.input.example_list.examples.add().features.feature["x"].float_list.value.append(2.0)
    several.tasks.add(method_name="tensorflow/serving/regress").model_spec.name = "examples"
    several.tasks[0].model_spec.signature_name = "value"
    heard["multi"] = predicting.MultiInference(several, 30).results[0].regression_result.regressions[0].value

    about = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    about.model_spec.name = "half"
    signatures = get_model_metadata_pb2.SignatureDefMap()
    predicting.GetModelMetadata(about, 30).metadata["signature_def"].Unpack(signatures)
    heard["metadata"] = sorted(signatures.signature_def)
    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = "half"
    heard["status"] = [[it.version, it.state, it.status.error_code] for it in managing.GetModelStatus(status, 30).model_version_status]
    heard["reload"] = refusal(lambda: managing.HandleReloadConfigRequest(model_management_pb2.ReloadConfigRequest(), 30))

    folder = Path(sys.argv[2])
    good, bad = predict_request([1.0]), predict_request([1.0], signature="nope")
    for name, request in (("good", good), ("bad", bad)):
        with tf.io.TFRecordWriter(str(folder / name)) as writer:
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            writer.write(log.SerializeToString())
    print(json.dumps(heard))


if __name__ == "__main__":
    main()
