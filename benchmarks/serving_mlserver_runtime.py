"""Runs in MLServer's own environment, as its runtime for the benchmark's model."""

import serving_session
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class SessionRuntime(MLModel):  # type: ignore[misc]
    async def load(self) -> bool:
        self._call = serving_session.load(self.settings.parameters.uri)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        (sent,) = payload.inputs
        result = self._call(NumpyCodec.decode_input(sent))
        return InferenceResponse(model_name=self.name, model_version="1", id=payload.id, outputs=[NumpyCodec.encode_output("y", result)])
