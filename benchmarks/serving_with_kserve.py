"""Runs in KServe's own environment: `python serving_with_kserve.py PORT MODEL`, its Python server, one worker, V2 over REST."""

import sys
from typing import Any

import serving_session
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer


class Perceptron(Model):  # type: ignore[misc]
    def __init__(self, folder: str) -> None:
        super().__init__("mlp")
        self._call = serving_session.load(folder)
        self.ready = True

    def predict(self, payload: InferRequest, headers: Any = None, response_headers: Any = None) -> InferResponse:
        y = self._call(payload.inputs[0].as_numpy())
        output = InferOutput("y", list(y.shape), "FP32")
        output.set_data_from_numpy(y, binary_data=False)
        return InferResponse(response_id=payload.id or "", model_name=self.name, infer_outputs=[output])


if __name__ == "__main__":
    ModelServer(http_port=int(sys.argv[1]), enable_grpc=False, workers=1, enable_latency_logging=False).start([Perceptron(sys.argv[2])])
