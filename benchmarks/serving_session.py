"""Runs in a peer's own environment: the benchmark's model as the same session callable that our server uses, and V2's JSON around it."""

import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from tensorflow.core.protobuf import config_pb2  # noqa: E402


def load(folder: str) -> Callable[[Any], Any]:
    """From a batch of float32 rows to the outputs' rows."""
    graph = tf.Graph()
    session = tf.compat.v1.Session(graph=graph, config=tf.compat.v1.ConfigProto(inter_op_parallelism_threads=-1))
    with graph.as_default():
        meta = tf.compat.v1.saved_model.load(session, [tf.saved_model.SERVING], folder)
    signature = meta.signature_def["serving_default"]
    feeds, fetches = ([it.name for it in tensors.values()] for tensors in (signature.inputs, signature.outputs))
    call = session._make_callable_from_options(config_pb2.CallableOptions(feed=feeds, fetch=fetches))
    call(np.zeros((1, 784), np.float32))
    return lambda x: call(x)[0]


def answer(call: Callable[[Any], Any], inputs: Any) -> dict[str, Any]:
    """`inputs`: as V2's JSON has them, one."""
    (sent,) = inputs
    y = call(np.array(sent["data"], np.float32).reshape(sent["shape"]))
    return {"model_name": "mlp", "outputs": [{"name": "y", "datatype": "FP32", "shape": list(y.shape), "data": y.ravel().tolist()}]}
