"""`tf.contrib` as far as version 1's interface has the same under another name. For the rest an ImportError says what took its place."""

from __future__ import annotations

import sys
import types
from typing import Any

import tensorflow as tf

# part -> name -> where TensorFlow has it now
_SAME = {
    "layers": {
        "flatten": "layers.flatten",
        "l1_regularizer": "keras.regularizers.l1",
        "l2_regularizer": "keras.regularizers.l2",
        "variance_scaling_initializer": "initializers.variance_scaling",
        "xavier_initializer": "initializers.glorot_uniform",
        "xavier_initializer_conv2d": "initializers.glorot_uniform",
    },
    "rnn": {
        "BasicLSTMCell": "nn.rnn_cell.BasicLSTMCell",
        "BasicRNNCell": "nn.rnn_cell.BasicRNNCell",
        "DropoutWrapper": "nn.rnn_cell.DropoutWrapper",
        "GRUCell": "nn.rnn_cell.GRUCell",
        "LSTMCell": "nn.rnn_cell.LSTMCell",
        "MultiRNNCell": "nn.rnn_cell.MultiRNNCell",
        "static_rnn": "nn.static_rnn",
    },
    "framework": {"get_or_create_global_step": "train.get_or_create_global_step", "nest": "nest"},
    "data": {"AUTOTUNE": "data.experimental.AUTOTUNE"},
}
_INSTEAD = {
    "distribute": "tf.distribute",
    "eager": "tf.GradientTape and tf.function, without TF1 mode",
    "estimator": "tf.estimator",
    "learn": "tf.estimator, and for MNIST tensorflow.examples.tutorials.mnist.input_data",
    "lookup": "tf.lookup",
    "metrics": "tf.metrics",
    "opt": "tf.train and tf.keras.optimizers",
    "predictor": "tf.saved_model.load with tf.Session",
    "slim": "the package tf_slim in pip_packages: import tf_slim as slim",
    "tensorboard": "the package tensorboard",
    "tpu": "tf.tpu and tf.estimator.tpu",
    "training": "tf.train and tf.data.experimental",
}


class _Part(types.ModuleType):
    """tf.contrib.<part>"""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        part = self.__name__.rpartition(".")[2]
        where = _SAME[part].get(name)
        if where is None:
            there = ", ".join(sorted(_SAME[part]))
            raise ImportError(
                f"tf.contrib.{part}.{name} went away with TensorFlow 1; of tf.contrib.{part} there is here: {there}. "
                "See tf.layers, tf.nn and tf.keras for the rest."
            )
        found: Any = tf
        for step in where.split("."):
            found = getattr(found, step)
        return found


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    instead = f"use {_INSTEAD[name]}" if name in _INSTEAD else "look for it in tf.compat.v1, or among the add-on packages of the index"
    raise ImportError(f"tf.contrib.{name} went away with TensorFlow 1 and is not in 2.15, which runs this script: {instead}.")


for _name in _SAME:
    globals()[_name] = sys.modules[f"{__name__}.{_name}"] = _Part(f"{__name__}.{_name}")
