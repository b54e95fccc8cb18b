"""Runs in MLServer's own environment, as its runtime for the benchmark's model: the same session callable that our server uses."""

import os
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from mlserver import MLModel  # noqa: E402
from mlserver.codecs import NumpyCodec  # noqa: E402
from mlserver.types import InferenceRequest, InferenceResponse  # noqa: E402
from tensorflow.core.protobuf import config_pb2  # noqa: E402


class SessionRuntime(MLModel):  # type: ignore[misc]
    async def load(self) -> bool:
        graph = tf.Graph()
        session = tf.compat.v1.Session(graph=graph, config=tf.compat.v1.ConfigProto(inter_op_parallelism_threads=-1))
        with graph.as_default():
            meta = tf.compat.v1.saved_model.load(session, [tf.saved_model.SERVING], self.settings.parameters.uri)
        signature = meta.signature_def["serving_default"]
        (self._output,) = signature.outputs
        feeds, fetches = ([it.name for it in tensors.values()] for tensors in (signature.inputs, signature.outputs))
        self._call: Any = session._make_callable_from_options(config_pb2.CallableOptions(feed=feeds, fetch=fetches))
        self._call(np.zeros((1, 784), np.float32))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        (sent,) = payload.inputs
        (result,) = self._call(NumpyCodec.decode_input(sent))
        return InferenceResponse(
            model_name=self.name, model_version="1", id=payload.id, outputs=[NumpyCodec.encode_output(self._output, result)]
        )
