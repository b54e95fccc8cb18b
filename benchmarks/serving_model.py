"""Run in a TensorFlow environment: `python serving_model.py FOLDER [KIND]` saves a model that servers are measured on.

perceptron (784-128-128-10) costs 10 microseconds a call; convolutional (28x28 pixels, two layers, 10 classes) costs what it computes; large has
64 MiB of weights.
"""

import sys
from typing import Any

import tensorflow as tf


def _weights(*shapes: list[int]) -> list[Any]:
    random = tf.random.Generator.from_seed(7)
    return [tf.Variable(random.normal(shape) / 20) for shape in shapes]


class Perceptron(tf.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.layers = _weights([784, 128], [128, 128], [128, 10])

    @tf.function(input_signature=[tf.TensorSpec([None, 784], tf.float32, "x")])
    def __call__(self, x):  # type: ignore[no-untyped-def]
        for weights in self.layers[:-1]:
            x = tf.nn.relu(x @ weights)
        return {"y": tf.nn.softmax(x @ self.layers[-1])}


class Convolutional(tf.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.filters = _weights([3, 3, 1, 32], [3, 3, 32, 64])
        (self.last,) = _weights([7 * 7 * 64, 10])

    @tf.function(input_signature=[tf.TensorSpec([None, 784], tf.float32, "x")])
    def __call__(self, x):  # type: ignore[no-untyped-def]
        x = tf.reshape(x, [-1, 28, 28, 1])
        for filters in self.filters:
            x = tf.nn.max_pool2d(tf.nn.relu(tf.nn.conv2d(x, filters, 1, "SAME")), 2, 2, "SAME")
        return {"y": tf.nn.softmax(tf.reshape(x, [-1, 7 * 7 * 64]) @ self.last)}


class Large(tf.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        (self.weights,) = _weights([16, 1 << 20])

    @tf.function(input_signature=[tf.TensorSpec([None, 16], tf.float32, "x")])
    def __call__(self, x):  # type: ignore[no-untyped-def]
        return {"y": tf.reduce_max(x @ self.weights, axis=1)}


made = {"perceptron": Perceptron, "convolutional": Convolutional, "large": Large}[sys.argv[2] if len(sys.argv) > 2 else "perceptron"]()
tf.saved_model.save(made, sys.argv[1], signatures=made.__call__)
