"""Run by a test in a TensorFlow environment: `python client_serving.py GRPC_ADDRESS` calls two versions of a model by PyPI's own stubs of
TensorFlow Serving, as their users do, and prints as JSON what it heard."""

import json
import sys

import grpc
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)


def naming(request, version=None, model="half"):
    request.model_spec.name = model
    if version is not None:
        request.model_spec.version.value = version
    return request


def predict_request(version=None, model="half"):
    request = naming(predict_pb2.PredictRequest(), version, model)
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([1.0], tf.float32))
    return request


def refusal(call):
    try:
        call()
    except grpc.RpcError as error:
        return [error.code().name, error.details()]
    return []


def main():
    channel = grpc.insecure_channel(sys.argv[1])
    predicting = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    managing = model_service_pb2_grpc.ModelServiceStub(channel)
    heard = {}
    for version in (3, 4):
        answers = [predicting.Predict(predict_request(version), 30) for _ in range(20)]
        heard[f"version {version}"] = sorted({(it.model_spec.version.value, it.outputs["y"].float_val[0]) for it in answers})
        status = managing.GetModelStatus(naming(get_model_status_pb2.GetModelStatusRequest(), version), 30)
        heard[f"status {version}"] = [[it.version, it.state] for it in status.model_version_status]
        about = naming(get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"]), version)
        heard[f"metadata {version}"] = predicting.GetModelMetadata(about, 30).model_spec.version.value
    heard["any"] = sorted({predicting.Predict(predict_request(), 30).model_spec.version.value for _ in range(60)})
    heard["lost version"] = refusal(lambda: predicting.Predict(predict_request(9), 30))
    heard["unknown"] = refusal(lambda: predicting.Predict(predict_request(model="nope"), 30))
    print(json.dumps(heard))


if __name__ == "__main__":
    main()
